"""`fog-gateway accept`: boards without an invitation ask for a while, and a person lets them in."""

from __future__ import annotations

import argparse
import sys
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Final

from fogmqtt.cli.invite import find_site, time_of
from fogmqtt.cli.signals import stop_on_signals
from fogmqtt.config import GatewayConfig
from fogmqtt.errors import JoinRefused, UsageError
from fogmqtt.log import one_line

if TYPE_CHECKING:
    from fogmqtt.joining.ledger import Applicant
    from fogmqtt.joining.site import Site

#: Seconds between two looks at who asks.
_WATCH_S: Final = 0.5


def accept(config: GatewayConfig, options: argparse.Namespace) -> int:
    """Let boards ask and list them, or let one in. Returns the exit code.

    Raises JoinRefused, UsageError and ConfigError.
    """
    site = find_site(config)
    if options.board:
        return _let_in(site, options.board, options.code)
    if options.close:
        return _close(site)
    return _let_ask(site, options.time)


def _let_in(site: Site, board: str, code: str | None) -> int:
    from fogmqtt.joining.bundle import utc_now
    from fogmqtt.joining.membership import Membership

    applicant = site.ledger.read().asking(board, utc_now())
    if code is None and not _is_same(applicant):
        return 1
    if code is not None and not applicant.has_code(code):
        raise JoinRefused(
            f"{board} asks from {applicant.address}, and not with the code {one_line(code)}: that "
            "may not be your board. To let no board ask: fog-gateway accept --close"
        )
    Membership(site).accept(board, utc_now())
    print(f"{board} is let in, from {applicant.address}")
    return 0


def _is_same(applicant: Applicant) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            f"give the code that the board shows, too: fog-gateway accept {applicant.id} 123-456"
        )
    question = f"Does {applicant.id}, from {applicant.address}, show {applicant.code}? [y/N] "
    return input(question).strip().lower() in ("y", "yes")


def _close(site: Site) -> int:
    from fogmqtt.joining.bundle import utc_now
    from fogmqtt.joining.membership import Membership

    Membership(site).let_ask(utc_now())
    print("no board may ask to join")
    return 0


def _let_ask(site: Site, text: str) -> int:
    """List the boards that ask, until their time is over."""
    from fogmqtt.joining.asking import LONGEST_WINDOW
    from fogmqtt.joining.bundle import shown_time, utc_now
    from fogmqtt.joining.membership import Membership
    from fogmqtt.joining.open_port import await_port

    length = time_of(text)
    if length > LONGEST_WINDOW:
        raise UsageError("--for: boards may ask for up to 1h")
    Membership(site).let_ask(utc_now() + length)
    if problem := await_port(site):
        print(f"Boards cannot ask yet: {problem}", file=sys.stderr)
    print(f"boards may ask to join until {shown_time(utc_now() + length)}", flush=True)
    shown: set[str] = set()
    stopped = threading.Event()
    with stop_on_signals(stopped.set):
        while _show_new(site, shown, utc_now()):
            if stopped.wait(_WATCH_S):
                return _close(site)
    print("no board may ask to join any more")
    return 0


def _show_new(site: Site, shown: set[str], now: datetime) -> bool:
    """Show who asks and was not shown yet. Return whether boards may still ask."""
    ledger = site.ledger.read()
    for one in ledger.applicants.values():
        if one.code and one.code not in shown:
            shown.add(one.code)
            print(
                f"{one.id} asks from {one.address}, with the code {one.code}. If the board shows "
                f"it, too: fog-gateway accept {one.id} {one.code}",
                flush=True,
            )
    return ledger.may_ask(now)
