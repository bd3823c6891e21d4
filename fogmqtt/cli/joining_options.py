"""The options of the commands about boards that join. Imports nothing that those use."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_init(parser: argparse.ArgumentParser) -> None:
    """Add the options of `init`."""
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("fog"),
        metavar="DIR",
        help="where (default: fog)",
    )
    # Whoever calls this again keeps what was chosen before, so there are no defaults here.
    parser.add_argument("--id", help="of the gateway (default: mariem)")
    parser.add_argument("--prefix", help="as wire.prefix (default: fog/v1)")
    parser.add_argument("--port", type=_port, metavar="PORT", help="of the broker (default: 8883)")
    parser.add_argument(
        "--join-port", type=_port, metavar="PORT", help="where boards join (default: 8884)"
    )
    parser.add_argument(
        "--local-port",
        type=_port,
        metavar="PORT",
        help="of the broker for this machine (default: 1883, if free)",
    )
    parser.add_argument(
        "--address",
        action="append",
        metavar="HOST",
        help="under which boards reach this machine (default: all that it has; all: all again)",
    )
    parser.add_argument("--user", help="who runs gateway and broker (default: who calls this)")
    parser.add_argument("--yes", action="store_true", help="overwrite without asking")


def add_invite(parser: argparse.ArgumentParser) -> None:
    """Add the options of `invite`."""
    parser.add_argument("board", metavar="BOARD", help="its name: a-z, 0-9, _ and -")
    parser.add_argument(
        "--for",
        dest="time",
        default="24h",
        metavar="TIME",
        help="how long it is open: 10m, 24h or 7d (default: 24h)",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="the file (default: BOARD.fog)"
    )
    parser.add_argument(
        "--replace", action="store_true", help="a board of this name has joined; the new one counts"
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="put certificate and key into the file, for a board that cannot ask this gateway",
    )


def add_accept(parser: argparse.ArgumentParser) -> None:
    """Add the options of `accept`."""
    parser.add_argument("board", nargs="?", metavar="BOARD", help="let this one in")
    parser.add_argument("code", nargs="?", metavar="CODE", help="what the board shows: 482-193")
    parser.add_argument(
        "--for",
        dest="time",
        default="10m",
        metavar="TIME",
        help="how long boards may ask: up to 1h (default: 10m)",
    )
    parser.add_argument("--close", action="store_true", help="let no board ask from now on")


def add_update(parser: argparse.ArgumentParser) -> None:
    """Add the options of `update`."""
    parser.add_argument("boards", nargs="*", metavar="BOARD", help="one that joined by its line")
    parser.add_argument("--all", action="store_true", help="all boards that are behind")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
