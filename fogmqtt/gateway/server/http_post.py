"""One POST of a file to a configured URL, with the standard library.

A redirect is not followed: it would call a URL that no configuration names. A library would bring
pools, cookies and redirects that are not wanted here.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import SplitResult, urlsplit

from fogmqtt.errors import ConfigError, FogError, reason_of

#: Signs the body, as webhooks of GitHub do, so that receivers for those can check it.
SIGNATURE: Final = "X-Hub-Signature-256"
_CHUNK_BYTES: Final = 1 << 20
#: The bytes of an answer that are read; its text is not used.
_ANSWER_BYTES: Final = 1000
_REDIRECTS: Final = range(300, 400)
#: The longest pause that a receiver may ask for, in seconds.
_LONGEST_RETRY_S: Final = 3600.0


class PostFailed(FogError):
    """A receiver did not take a POST. `retry_after_s` is how long it wants to be left alone."""

    def __init__(self, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Receiver:
    """A URL that results are POSTed to, and how."""

    url: str
    #: A file with the secret that signs the body; empty for none.
    secret_file: str
    #: Seconds to connect, and without a byte.
    timeout_s: float
    #: PEM: who signed the receiver's certificate; "" for the system's list.
    ca: str = ""


def check_url(url: str) -> SplitResult:
    """Return the parts of a URL that can be called. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError:
        parts, port_is_valid = SplitResult("", "", "", "", ""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
        raise ConfigError(f"{url!r} is no URL to call; use the form https://host:443/path")
    if parts.username is not None or parts.fragment or not url.isascii() or not url.isprintable():
        raise ConfigError(
            f"the URL of {parts.hostname} has a user, a fragment, or characters beyond ASCII; "
            "leave them out, and sign with callback.secret_file"
        )
    return parts


def read_secret(path: str) -> bytes:
    """Return the secret in a file, without the line break at its end. Raises ConfigError."""
    try:
        secret = Path(path).read_bytes().rstrip(b"\r\n")
    except OSError as problem:
        reason = reason_of(problem, Path(path))
        raise ConfigError(f"callback.secret_file: {path}: {reason}") from None
    if not secret:
        raise ConfigError(f"callback.secret_file: {path} is empty; write a secret into it")
    return secret


def tls_context(ca: str) -> ssl.SSLContext:
    """Return a context that verifies receivers. Raises ConfigError for a file that is no PEM."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as problem:
        raise ConfigError(f"callback.ca: {ca}: {problem}; give a PEM file") from None


def post_file(receiver: Receiver, path: Path, headers: Mapping[str, str]) -> None:
    """POST a file. Blocking: call in a thread of its own.

    Raises PostFailed if the receiver does not answer with 200 to 299, ConfigError for an unusable
    secret, and OSError if the file cannot be read.
    """
    with path.open("rb") as body:
        size = path.stat().st_size
        sent = {**headers, "Content-Length": str(size), "Connection": "close"}
        if receiver.secret_file:
            sent[SIGNATURE] = f"sha256={_signature(body, read_secret(receiver.secret_file))}"
        connection = _connection(receiver)
        try:
            _post(connection, receiver, body, sent)
        finally:
            connection.close()


def _signature(body: BinaryIO, secret: bytes) -> str:
    signer = hmac.new(secret, digestmod=hashlib.sha256)
    while chunk := body.read(_CHUNK_BYTES):
        signer.update(chunk)
    body.seek(0)
    return signer.hexdigest()


def _connection(receiver: Receiver) -> HTTPConnection:
    parts = check_url(receiver.url)
    assert parts.hostname is not None  # noqa: S101  # checked
    if parts.scheme == "https":
        return HTTPSConnection(
            parts.hostname,
            parts.port,
            timeout=receiver.timeout_s,
            context=tls_context(receiver.ca),
        )
    return HTTPConnection(parts.hostname, parts.port, timeout=receiver.timeout_s)


def _post(
    connection: HTTPConnection, receiver: Receiver, body: BinaryIO, headers: Mapping[str, str]
) -> None:
    parts = check_url(receiver.url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.request("POST", target, body, headers)
        answer = connection.getresponse()
        answer.read(_ANSWER_BYTES)
    except TimeoutError:
        raise PostFailed(
            f"no answer within {receiver.timeout_s:g} s (callback.timeout_s)"
        ) from None
    except ssl.SSLCertVerificationError as problem:
        raise PostFailed(_distrust(parts.hostname or "", problem, receiver.ca)) from None
    except (OSError, HTTPException) as problem:
        raise PostFailed(str(problem) or type(problem).__name__) from None
    if not 200 <= answer.status < 300:
        raise PostFailed(_refusal(answer), _retry_after_s(answer))


def _distrust(host: str, problem: ssl.SSLCertVerificationError, ca: str) -> str:
    """Return why a receiver's certificate is not accepted, and what to do about it."""
    why = problem.verify_message.rstrip(".") or str(problem)
    trusted = f"by {ca} (callback.ca)" if ca else "by the authorities of this machine"
    way_out = "name its authority in callback.ca, or renew it"
    return f"the certificate of {host} is not accepted {trusted}: {why}; {way_out}"


def _refusal(answer: HTTPResponse) -> str:
    text = f"it answered {answer.status} {answer.reason}"
    if answer.status not in _REDIRECTS:
        return text
    to = (answer.getheader("Location") or "nowhere")[:200]
    return f"{text}, a redirect to {to}, which is not followed: name the final URL in callbacks"


def _retry_after_s(answer: HTTPResponse) -> float:
    text = answer.getheader("Retry-After") or ""
    return min(float(text), _LONGEST_RETRY_S) if text.isascii() and text.isdigit() else 0.0
