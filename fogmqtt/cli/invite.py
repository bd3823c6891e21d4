"""`fog-gateway invite`, `invites` and `revoke`: who may join, who has joined, and who no more."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from fogmqtt.cli.init import needs_join
from fogmqtt.cli.leftovers import clear_those_that_come
from fogmqtt.config import GatewayConfig
from fogmqtt.errors import ConfigError, TransportError, UsageError
from fogmqtt.setup.link import make_link
from fogmqtt.transport.base import Connected
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.transport.probe import is_listening
from fogmqtt.wire.topics import OFFLINE, Topics

if TYPE_CHECKING:
    from fogmqtt.joining.bundle import JoinBundle
    from fogmqtt.joining.site import Site

#: Where the folder of `init` is looked for, if no configuration names it.
_PLACES: Final = (Path("fog"), Path("/etc/fogmqtt"))
_TIME = re.compile(r"([1-9][0-9]{0,4})([mhd])")
#: Seconds in which our own broker answers.
_PATIENCE_S: Final = 5.0
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


def invite(config: GatewayConfig, options: argparse.Namespace) -> int:
    """Make an invitation: a file, a line and a QR code. Returns the exit code."""
    site = find_site(config)
    from fogmqtt.joining.bundle import SUFFIX, utc_now
    from fogmqtt.joining.membership import Membership
    from fogmqtt.joining.open_port import await_port

    length, membership, board = time_of(options.time), Membership(site), options.board
    path = options.out or Path(f"{board}{SUFFIX}")
    if options.offline:
        bundle = membership.make_offline(board, utc_now(), replaces=options.replace)
    else:
        bundle = membership.invite(board, length, utc_now(), replaces=options.replace)
    _write(path, bundle)
    if options.offline:
        print(
            f"{path} has the certificate and the key of {board}: whoever has the file is {board}, "
            f"until {bundle.expires:%Y-%m-%d} or fog-gateway revoke {board}. On the board:\n"
            f"  fog-device --id {board} --join {path.name}"
        )
        return 0
    problem = await_port(site)
    _print_invitation(site, bundle, path)
    if problem:
        print(f"The board cannot join yet: {problem}", file=sys.stderr)
    return 0


def show_invites(config: GatewayConfig, console: Console, *, as_json: bool) -> int:
    """List who was invited and who has joined. Returns the exit code."""
    site = find_site(config)
    from fogmqtt.joining.bundle import shown_time, utc_now

    ledger, now = site.ledger.read(), utc_now()
    rows = [
        {
            "board": one.id,
            "state": one.state(now),
            "until": one.expires,
            "used": one.used,
            "from": one.address,
        }
        for one in ledger.invitations
    ]
    joined = [
        {"board": one.id, "state": "joined", "until": one.expires, "used": one.joined}
        | {"from": one.address}
        for one in ledger.members.values()
    ]
    if as_json:
        print(json.dumps(rows + joined, default=lambda moment: moment.isoformat()))
        return 0
    if not rows and not joined:
        console.print("nobody is invited, and no board has joined: fog-gateway invite BOARD")
        return 0
    table = Table("board", "state", "until", "since", "from")
    for row in rows + joined:
        times = (shown_time(row[name]) if row[name] else "" for name in ("until", "used"))  # type: ignore[arg-type]
        table.add_row(str(row["board"]), str(row["state"]), *times, str(row["from"]))
    console.print(table)
    return 0


def revoke(config: GatewayConfig, board: str) -> int:
    """Let a board in no more. Returns the exit code."""
    site = find_site(config)
    from fogmqtt.joining.bundle import utc_now
    from fogmqtt.joining.membership import Membership

    member, is_told = Membership(site).revoke(board, utc_now())
    if member is None:
        print(f"{board} has not joined; its invitations, if there were any, are withdrawn")
        return 0
    if is_told:
        _disconnect(site, board)
        print(f"{board} is out: the broker knows its certificate as revoked")
        return 0
    print(
        f"{board} is revoked, but no broker with {site.broker_config} runs here under this user: "
        "send it a SIGHUP, or restart it",
        file=sys.stderr,
    )
    return 1


def find_site(config: GatewayConfig) -> Site:
    """Return the folder that `init` made. Raises ConfigError."""
    try:
        from fogmqtt.joining.site import Site
    except ImportError as problem:
        raise needs_join(problem) from None
    if config.joining.folder:
        return Site.open(Path(config.joining.folder))
    for folder in _PLACES:
        if (folder / "site.json").exists():
            return Site.open(folder)
    raise ConfigError(
        "joining.folder: no gateway that boards can join was made here; run fog-gateway init, or "
        "give --config with the config.yaml that it wrote"
    )


def _disconnect(site: Site, board: str) -> None:
    """Let the broker end a board's connection, by taking its id, and say that it is offline."""
    broker = replace(
        GatewayConfig().broker,
        url=f"mqtt://127.0.0.1:{site.settings.local_port}",
        embedded="never",
        username=site.settings.gateway,
        password=site.password_file.read_text().strip(),
    )
    events: SimpleQueue[object] = SimpleQueue()
    topics = Topics(site.settings.prefix)
    transport = PahoTransport(make_link(broker, board), events.put)
    transport.subscribe(topics.results("+", board), qos=0)
    transport.start()
    try:
        event = events.get(timeout=_PATIENCE_S)
        if isinstance(event, Connected):
            # The broker does not publish the will of a board that may not publish any more.
            transport.publish(topics.device(board, "status"), OFFLINE, retain=True)
            transport.publish(topics.device(board, "info"), b"", retain=True)
            clear_those_that_come(transport, events)
            return
        print(f"the broker does not let us end its connection: {event}", file=sys.stderr)
    except (Empty, TransportError):
        print("the broker does not answer, so the connection may still be there", file=sys.stderr)
    finally:
        transport.close()


def time_of(text: str) -> timedelta:
    """Return a time such as 10m, 24h or 7d. Raises UsageError."""
    found = _TIME.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"--for: {text!r} is no time; write it like 10m, 24h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _write(path: Path, bundle: JoinBundle) -> None:
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(bundle.encode())
    except OSError as problem:
        raise ConfigError(f"--out: {path}: {problem.strerror}; name another file") from None


def _print_invitation(site: Site, bundle: JoinBundle, path: Path) -> None:
    import segno

    from fogmqtt.joining.bundle import shown_time
    from fogmqtt.joining.install_script import install_line

    assert bundle.expires is not None  # noqa: S101  # an invitation ends
    print(f"{bundle.id} is invited until {shown_time(bundle.expires)}, once.")
    print(f"On a bare board, this installs all that it needs:\n  {install_line(site, bundle.code)}")
    print("Where fogmqtt is installed, either")
    print(f"  fog-device --id {bundle.id} --join {bundle.code}")
    print(f"or copy {path} to it (on an SD card to /boot/firmware/fogmqtt.fog), and")
    print(f"  fog-device --id {bundle.id} --join {path.name}")
    if sys.stdout.isatty():
        segno.make(str(bundle.code), error="m", micro=False).terminal(compact=True)
    if not is_listening(f"mqtt://127.0.0.1:{site.settings.local_port}"):
        print("The broker does not run yet, and boards need it and the gateway.", file=sys.stderr)
