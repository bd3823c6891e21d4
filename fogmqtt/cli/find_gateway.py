"""How `fog-device --id eya` finds its gateway: what it knows, what it is given, what it hears.

Nothing heavy is imported for a board that has joined: looking for gateways is a program of its own,
and a board that has just joined begins anew.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from fogmqtt.config import DeviceConfig
from fogmqtt.errors import (
    BadInvitation,
    JoinRefused,
    NoGateway,
    UsageError,
    missing_package,
    reason_of,
)
from fogmqtt.joining.identity import Identity, folders, load_identity, save_changed
from fogmqtt.log import one_line
from fogmqtt.transport.probe import is_broker, own_url

if TYPE_CHECKING:
    from fogmqtt.joining.bundle import JoinBundle, JoinCode

log = logging.getLogger(__name__)

#: Where a user puts an invitation on an SD card: the partition that every system can write.
BOOT_FILES: Final = (Path("/boot/firmware/fogmqtt.fog"), Path("/boot/fogmqtt.fog"))
_JOIN_PORT: Final = 8884
#: Addresses that are kept of one gateway: each costs time where it is dead.
_MOST_ADDRESSES: Final = 8
#: Seconds until a look for gateways has failed; it looks for 3.
_LOOK_S: Final = 30.0
_REASONS: Final = """\
Usual reasons: the gateway is in another network, such as a guest Wi-Fi or a VLAN; it runs in a \
container without the host's network; it does not announce itself (joining.announce). If you know \
its broker: fog-device --id {device} --broker mqtt://HOST:1883"""


@dataclass(frozen=True, slots=True)
class Hints:
    """What a user has said about the gateway."""

    #: An invitation: a file or a line; empty for none.
    join: str = ""
    #: The gateway's machine, `host` or `host:port`, where mDNS does not reach.
    gateway: str = ""


def invited_device(hints: Hints) -> str:
    """Return the name of the board in its invitation; empty if there is none."""
    found = _given(hints) or _boot_file()
    return found[0].id if found else ""


def find_gateway(
    device: str, config: DeviceConfig, hints: Hints, environ: Mapping[str, str]
) -> DeviceConfig:
    """Return the configuration with the broker of the board's gateway.

    A board that joins begins its program anew, with its identity. Raises NoGateway, JoinRefused,
    BadInvitation, UsageError and ConfigError.
    """
    places = folders(environ)
    saved = load_identity(device, places)
    given = _given(hints)
    if given is None and saved is None:
        given = _boot_file()
    if given is not None and not (saved and _is_of(saved[0], given[0])):
        _check_name(device, *given)
        _join(given[0], hints, places[0])
    if saved is not None:
        return _joined(config, *_refreshed(*saved))
    if hints.gateway:
        _ask(device, (_join_url(hints.gateway),), places[0])
    tried = ["no saved identity of this board", "no invitation"]
    for url in (config.broker.urls[0], own_url(config.broker.urls[0])):
        if url and is_broker(url):
            return config
    tried.append("no broker on this machine")
    return _announced(device, config, tried, places[0])


def _given(hints: Hints) -> tuple[JoinBundle | JoinCode, str] | None:
    if not hints.join:
        return None
    path = Path(hints.join)
    if ":" in hints.join and not path.exists():
        return _read(hints.join, "--join")
    return _read_file(path)


def _boot_file() -> tuple[JoinBundle | JoinCode, str] | None:
    for path in BOOT_FILES:
        if path.exists():
            return _read_file(path)
    return None


def _read_file(path: Path) -> tuple[JoinBundle | JoinCode, str]:
    try:
        return _read(path.read_text("utf-8"), str(path))
    except OSError as problem:
        raise BadInvitation(
            f"{path}: {reason_of(problem, path)}; give the file or the line that `fog-gateway "
            "invite` made"
        ) from None
    except UnicodeDecodeError:
        raise BadInvitation(f"{path}: not the file that `fog-gateway invite` made") from None


def _read(text: str, where: str) -> tuple[JoinBundle | JoinCode, str]:
    from fogmqtt.joining.bundle import read_invitation

    return read_invitation(text, where), where


def _is_of(identity: Identity, invitation: JoinBundle | JoinCode) -> bool:
    """Whether the board has joined with this invitation before."""
    from fogmqtt.joining.bundle import JoinBundle, token_hash

    secret = invitation.token
    if isinstance(invitation, JoinBundle) and invitation.cert:
        secret = invitation.cert
    return identity.token == token_hash(secret)


def _check_name(device: str, invitation: JoinBundle | JoinCode, where: str) -> None:
    if invitation.id != device:
        raise BadInvitation(
            f"{where}: this invitation is for {invitation.id}, and this board is {device}; start "
            f"it with --id {invitation.id}, or invite {device}"
        )


def join_once(device: str, hints: Hints, environ: Mapping[str, str]) -> str:
    """Join with an invitation, unless that was done before. Return what to say of it."""
    given = _given(hints)
    if given is None:
        raise UsageError("give the file or the line that `fog-gateway invite` made")
    _check_name(device, *given)
    places = folders(environ)
    saved = load_identity(device, places)
    if saved and _is_of(saved[0], given[0]):
        return f"{device} is a board of {saved[0].gateway} already"
    identity = _save_identity(given[0], hints, places[0])
    return f"{device} is a board of {identity.gateway} now; the identity is in {places[0]}"


def _join(invitation: JoinBundle | JoinCode, hints: Hints, folder: Path) -> NoReturn:
    """Join, save the identity, and begin this program anew: what joining needs is large."""
    _begin_anew(_save_identity(invitation, hints, folder), folder)


def _begin_anew(identity: Identity, folder: Path) -> NoReturn:
    log.info("joined %s as %s; the identity is in %s", identity.gateway, identity.id, folder)
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _save_identity(invitation: JoinBundle | JoinCode, hints: Hints, folder: Path) -> Identity:
    try:
        from fogmqtt.joining.board import join
    except ImportError as problem:
        raise _needs_join(problem) from None
    log.info("joining as %s", invitation.id)
    identity, remark = join(invitation, _join_urls(invitation, hints), folder)
    if remark:
        log.warning("%s", remark)
    return identity


def _needs_join(problem: ImportError) -> Exception:
    """Return what to say where a package of the extra `join` is missing."""
    if not missing_package(problem):
        return problem
    return UsageError(f"a package is missing: {problem.name}; pip install 'fogmqtt[join]'")


def _join_urls(invitation: JoinBundle | JoinCode, hints: Hints) -> tuple[str, ...]:
    """Return where a board with a line asks; a file says it itself."""
    from fogmqtt.joining.bundle import JoinBundle

    if isinstance(invitation, JoinBundle):
        return ()
    if hints.gateway:
        return (_join_url(hints.gateway),)
    found, problem = _look(invitation.pin)
    urls = [url for notice in found for url in _urls(notice, "https", notice["join_port"])]
    if not urls:
        raise NoGateway(
            f"the gateway of this invitation is not announced on this network{problem}. Name its "
            "machine: --gateway HOST, or use the file in place of the line"
        )
    return tuple(urls)


def _join_url(gateway: str) -> str:
    host, _, port = gateway.partition(":")
    return f"https://{host}:{port or _JOIN_PORT}"


def _ask(device: str, urls: tuple[str, ...], folder: Path) -> NoReturn:
    """Ask to join, and begin this program anew with the identity."""
    try:
        from fogmqtt.joining.board import ask
    except ImportError as problem:
        raise _needs_join(problem) from None

    def show(url: str, code: str) -> None:
        log.warning(
            "%s asks to join at %s; on the gateway run: fog-gateway accept %s %s",
            device,
            url,
            device,
            code,
        )

    _begin_anew(ask(device, urls, folder, show), folder)


def _refreshed(identity: Identity, folder: Path) -> tuple[Identity, Path]:
    """Return the identity, with newer addresses if none of the saved ones answers."""
    if any(map(_is_reachable, identity.brokers)):
        return identity, folder
    return find_moved(identity, folder) or identity, folder


def find_moved(identity: Identity, folder: Path) -> Identity | None:
    """Return the identity with the addresses that its gateway announces; None if it has them."""
    found, _ = _look(identity.pin)
    brokers = tuple(url for one in found for url in _urls(one, "mqtts", one["port"]))
    if not brokers or brokers == identity.brokers[: len(brokers)]:
        return None
    log.info("%s has moved to %s", identity.gateway, ", ".join(brokers))
    import msgspec

    ports = tuple(url for one in found for url in _urls(one, "https", one["join_port"]))
    changed = msgspec.structs.replace(
        identity, brokers=_first(brokers, identity.brokers), join=_first(ports, identity.join)
    )
    try:
        save_changed(changed, folder)
    except OSError as problem:
        log.warning("the new address is not saved: %s", problem.strerror)
    return changed


def _first(new: tuple[str, ...], old: tuple[str, ...]) -> tuple[str, ...]:
    """Return new addresses before the old ones, of which the oldest are forgotten."""
    return tuple(dict.fromkeys((*new, *old)))[:_MOST_ADDRESSES]


def _is_reachable(url: str) -> bool:
    from fogmqtt.transport.probe import is_listening

    return is_listening(url)


def _joined(config: DeviceConfig, identity: Identity, folder: Path) -> DeviceConfig:
    pem = str(identity.pem(folder))
    return replace(
        config,
        broker=replace(
            config.broker,
            url=identity.brokers,
            ca=str(identity.ca(folder)),
            cert=pem,
            key=pem,
        ),
        wire=replace(config.wire, prefix=identity.prefix),
    )


def _announced(device: str, config: DeviceConfig, tried: list[str], folder: Path) -> DeviceConfig:
    """Use the one gateway that is announced, if it is open or boards may ask there."""
    found, problem = _look("")
    if len(found) > 1:
        lines = "\n".join(f"  {_command(device, one)}" for one in found)
        raise UsageError(f"{len(found)} gateways are on this network; choose one:\n{lines}")
    if not found:
        tried.append(f"no gateway announced by mDNS within 3 s{problem}")
        raise NoGateway(f"no gateway found: {', '.join(tried)}. {_REASONS.format(device=device)}")
    (notice,) = found
    where = ", ".join(notice["addresses"])
    if notice["pin"]:
        _ask_announced(device, notice, where, folder)
    log.info("found %s at %s", notice["gateway"], where)
    return replace(
        config,
        broker=replace(config.broker, url=_urls(notice, "mqtt", notice["port"])),
        wire=replace(config.wire, prefix=notice["prefix"]),
    )


def _ask_announced(device: str, notice: Mapping[str, Any], where: str, folder: Path) -> NoReturn:
    """Ask to join, also if the announcement does not say yet that boards may ask."""
    try:
        _ask(device, _urls(notice, "https", notice["join_port"]), folder)
    except JoinRefused as problem:
        if notice["asks"]:
            raise
        # A service tries again after NoGateway, and somebody may let it in later.
        raise NoGateway(f"{notice['gateway']} at {where}: {problem}") from None
    except NoGateway:
        if notice["asks"]:
            raise
        raise NoGateway(
            f"{notice['gateway']} at {where} lets boards in by invitation; on it run: "
            f"fog-gateway invite {device}, or fog-gateway accept and start this board again"
        ) from None


def _command(device: str, notice: Mapping[str, Any]) -> str:
    """Return what a user types to use this gateway."""
    if notice["pin"]:
        return f"fog-gateway invite {device}    (on {notice['gateway']}, {notice['addresses'][0]})"
    (url, *_) = _urls(notice, "mqtt", notice["port"])
    prefix = "" if notice["prefix"] == "fog/v1" else f"FOGMQTT_WIRE__PREFIX={notice['prefix']} "
    return f"{prefix}fog-device --id {device} --broker {url}    ({notice['gateway']})"


def _urls(notice: Mapping[str, Any], scheme: str, port: int) -> tuple[str, ...]:
    return tuple(f"{scheme}://{address}:{port}" for address in notice["addresses"])


def hears_mdns() -> bool | None:
    """Return whether any machine answers by mDNS; None if that cannot be found out."""
    command = [sys.executable, "-m", "fogmqtt.cli.mdns", "--anybody"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOOK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.strip() == "true"


def _look(pin: str) -> tuple[list[dict[str, Any]], str]:
    """Return the gateways that are announced, and why none can be found, if that is so."""
    command = [sys.executable, "-m", "fogmqtt.cli.mdns", *([pin] if pin else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOOK_S, check=False)
        if done.returncode == 0:
            found = json.loads(done.stdout)
            return [one for one in found if one["addresses"]], ""
    except (OSError, subprocess.TimeoutExpired, ValueError) as problem:
        return [], f" ({one_line(str(problem))})"
    lines = done.stderr.strip().splitlines() or ["it cannot be looked for"]
    if "No module named" in lines[-1]:
        return [], " (it cannot be looked for: pip install 'fogmqtt[join]')"
    return [], f" ({one_line(lines[-1])})"
