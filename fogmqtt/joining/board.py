"""The board's side of joining: its key is made here and never leaves it.

The authority is known by the invitation, so a connection is trusted whatever its name.
"""

from __future__ import annotations

import http.client
import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from fogmqtt.errors import BadInvitation, ConfigError, JoinRefused, NoGateway, WrongClock, reason_of
from fogmqtt.joining.asking import AskAnswer, AskRequest, commitment, new_nonce, short_code
from fogmqtt.joining.authority import make_request, new_key
from fogmqtt.joining.bundle import (
    JoinBundle,
    JoinCode,
    pin_of,
    shown_time,
    signature,
    token_hash,
    utc_now,
)
from fogmqtt.joining.identity import Identity
from fogmqtt.joining.membership import JoinAnswer, JoinRequest
from fogmqtt.joining.private_file import write_private
from fogmqtt.log import one_line

_A = TypeVar("_A")

#: Seconds between two questions whether a board was let in.
_ASK_AGAIN_S: Final = 1.0
#: Seconds to connect, and for an answer.
_PATIENCE_S: Final = 10.0
_MOST_BYTES: Final = 65_536
# What OpenSSL says of a certificate.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10


def join(
    invitation: JoinBundle | JoinCode, addresses: Sequence[str], folder: Path
) -> tuple[Identity, str]:
    """Join, save the identity in a folder, and return it with a remark on the clock, if any.

    `addresses` are the urls of join ports for a line, which has none. Raises JoinRefused,
    NoGateway, BadInvitation and ConfigError.
    """
    if isinstance(invitation, JoinBundle) and invitation.cert:
        return _take(invitation, folder), ""
    code = invitation.code if isinstance(invitation, JoinBundle) else invitation
    urls = invitation.join if isinstance(invitation, JoinBundle) else tuple(addresses)
    known = invitation.ca if isinstance(invitation, JoinBundle) else ""
    key = new_key()
    request = make_request(key, code.id)
    asked = JoinRequest(
        id=code.id, request=request, signature=signature(code.token, code.id, request)
    )
    _check_writable(folder)  # before the invitation is used up
    tried = []
    for url in urls:
        try:
            ca = known or _fetch_authority(url, code.pin)
            answer = _ask(url, "/join", asked, ca)
        except NoGateway as problem:
            tried.append(str(problem))
            continue
        now = utc_now()
        identity = _identity(answer, code.id, pin_of(ca), token_hash(code.token))
        _save(identity, folder, ca, answer.certificate, key)
        return identity, _clock_remark(answer.now, now)
    raise NoGateway(
        f"{'; '.join(tried) or 'no gateway was found'}. A gateway lets boards in only while it "
        f"runs and an invitation is open: on it, fog-gateway invites"
    )


def ask(
    device: str, urls: Sequence[str], folder: Path, show: Callable[[str, str], None]
) -> Identity:
    """Ask to join without an invitation, and wait until somebody on the gateway decides.

    `show` gets the url and the code that both sides show. Raises JoinRefused, NoGateway and
    ConfigError.
    """
    _check_writable(folder)
    key, nonce, tried = new_key(), new_nonce(), []
    request = make_request(key, device)
    asked = AskRequest(id=device, request=request, commitment=commitment(request, nonce))
    for url in urls:
        try:
            ca = _fetch_authority(url, "")
            theirs = _posted(url, "/ask", asked, ca, AskAnswer)
        except NoGateway as problem:
            tried.append(str(problem))
            continue
        asked = msgspec.structs.replace(asked, nonce=nonce)
        answer = _posted(url, "/asked", asked, ca, JoinAnswer)
        show(url, short_code(ca, request, nonce, theirs.nonce if theirs else ""))
        while answer is None:
            time.sleep(_ASK_AGAIN_S)
            answer = _posted(url, "/asked", asked, ca, JoinAnswer)
        identity = _identity(answer, device, pin_of(ca), "")
        _save(identity, folder, ca, answer.certificate, key)
        return identity
    raise NoGateway("; ".join(tried))


def renew(identity: Identity, folder: Path) -> Identity:
    """Get a newer certificate with the one that is there. Raises as `join` does."""
    _check_writable(folder)  # the gateway renews only the newest certificate that it gave
    ca = identity.ca(folder).read_text()
    key = new_key()
    asked = JoinRequest(id=identity.id, request=make_request(key, identity.id))
    tried = []
    for url in identity.join:
        try:
            answer = _ask(url, "/renew", asked, ca, identity.pem(folder))
        except NoGateway as problem:
            tried.append(str(problem))
            continue
        renewed = _identity(answer, identity.id, identity.pin, identity.token)
        _save(renewed, folder, ca, answer.certificate, key)
        return renewed
    raise NoGateway("; ".join(tried))


def fetch(url: str, path: str, ca: str, most: int) -> bytes:
    """Return a file of a gateway with this authority, of at most so many bytes.

    Raises JoinRefused and NoGateway.
    """
    status, data = _request(url, "GET", path, None, _trusting(ca), most)
    if status != 200:
        raise JoinRefused(_reason(url, data))
    return data


def _take(bundle: JoinBundle, folder: Path) -> Identity:
    """Save the certificate of an offline file."""
    now = utc_now()
    identity = Identity(
        id=bundle.id,
        gateway=bundle.gateway,
        prefix=bundle.prefix,
        brokers=bundle.brokers,
        join=bundle.join,
        pin=pin_of(bundle.ca),
        issued=now,
        expires=bundle.expires or now,
        token=token_hash(bundle.cert),
    )
    _save(identity, folder, bundle.ca, bundle.cert, bundle.key)
    return identity


def _identity(answer: JoinAnswer, device: str, pin: str, token: str) -> Identity:
    return Identity(
        id=device,
        gateway=answer.gateway,
        prefix=answer.prefix,
        brokers=answer.brokers,
        join=answer.join,
        pin=pin,
        issued=answer.now,
        expires=answer.expires,
        token=token,
    )


def _check_writable(folder: Path) -> None:
    """Raise ConfigError if nothing can be saved in a folder, or it cannot be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as problem:
        raise _unsaved(folder, problem) from None


def _unsaved(path: Path, problem: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: {reason_of(problem, path)}; the identity of this board cannot be saved there: "
        "set XDG_CONFIG_HOME to a folder that can be written, now and whenever this board starts"
    )


def _save(identity: Identity, folder: Path, ca: str, certificate: str, key: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as problem:
        raise _unsaved(folder, problem) from None
    _write(identity.ca(folder), ca.encode())
    _write(identity.pem(folder), f"{certificate}{key}".encode())
    _write(folder / f"{identity.id}.json", identity.encode())


def _write(path: Path, data: bytes) -> None:
    try:
        write_private(path, data)
    except OSError as problem:
        raise _unsaved(path, problem) from None


def _fetch_authority(url: str, pin: str) -> str:
    """Return the certificate of the authority, which must be that of the pin, if there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # its hash is what counts
    status, data = _request(url, "GET", "/ca", None, context)
    try:
        found = pin_of(data.decode("ascii"), url)
    except (BadInvitation, UnicodeDecodeError):
        found = ""
    if status != 200 or not found or (pin and found != pin):
        raise JoinRefused(
            f"{url} is not the gateway of this invitation: its authority is another one. Either it "
            "was made anew, or another machine answers there; make a new invitation on the gateway"
        )
    return data.decode("ascii")


def _ask(url: str, path: str, asked: JoinRequest, ca: str, pem: Path | None = None) -> JoinAnswer:
    answer = _posted(url, path, asked, ca, JoinAnswer, pem)
    if answer is None:
        raise JoinRefused(_not_understood(url))
    return answer


def _posted(
    url: str,
    path: str,
    asked: JoinRequest | AskRequest,
    ca: str,
    answers: type[_A],
    pem: Path | None = None,
) -> _A | None:
    """Return what a gateway answers; None if nobody has decided yet."""
    context = _trusting(ca)
    if pem is not None:
        context.load_cert_chain(pem)
    status, data = _request(url, "POST", path, msgspec.json.encode(asked), context)
    if status == 202:
        return None
    if status != 200:
        raise JoinRefused(_reason(url, data))
    try:
        return msgspec.json.decode(data, type=answers)
    except msgspec.DecodeError:
        raise JoinRefused(_not_understood(url)) from None


def _trusting(ca: str) -> ssl.SSLContext:
    """Return what trusts this authority, whatever name its gateway has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    return context


def _reason(url: str, data: bytes) -> str:
    """Return why a gateway refuses something."""
    try:
        return one_line(str(msgspec.json.decode(data, type=dict[str, str])["error"]))
    except (msgspec.DecodeError, KeyError):
        return _not_understood(url)


def _not_understood(url: str) -> str:
    return f"{url} answers what this version does not understand"


def _request(
    url: str,
    method: str,
    path: str,
    body: bytes | None,
    context: ssl.SSLContext,
    most: int = _MOST_BYTES,
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port or 443, timeout=_PATIENCE_S, context=context
    )
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read(most)
    except ssl.SSLCertVerificationError as problem:
        raise _verification(url, problem) from None
    except (OSError, http.client.HTTPException) as problem:
        raise NoGateway(f"{url}: {one_line(str(problem) or type(problem).__name__)}") from None
    finally:
        connection.close()


def _verification(url: str, problem: ssl.SSLCertVerificationError) -> JoinRefused:
    now = shown_time(utc_now())
    if problem.verify_code == _NOT_YET_VALID:
        return WrongClock(
            f"this board's clock says {now}, before the certificate of {url} begins; set the "
            "clock: sudo timedatectl set-time, or wait for the network's time"
        )
    if problem.verify_code == _EXPIRED:
        return WrongClock(
            f"the certificate of {url} has ended by this board's clock, which says {now}; if the "
            "clock is right, run fog-gateway init again on the gateway"
        )
    return JoinRefused(
        f"{url} is not the gateway of this invitation: another authority signed its certificate. "
        "Either it was made anew, or another machine answers there; make a new invitation"
    )


def _clock_remark(theirs: datetime, ours: datetime) -> str:
    if abs((theirs - ours).total_seconds()) < 3600:
        return ""
    return (
        f"this board's clock says {shown_time(ours)} and the gateway's {shown_time(theirs)}; "
        "set the wrong one"
    )
