"""What Ctrl-C and SIGTERM do to a command.

While a program loads and checks its arguments, there is nothing to undo, and it ends at once
(`fogmqtt.cli.leaving`). In a block of `noted_signals`, a signal is noted, so that the block can end
what it started. In a block of `stop_on_signals`, a signal calls a function that ends the work. A
second signal always ends the program at once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fogmqtt.cli.leaving import SIGNALS, end_at_once


@contextmanager
def noted_signals() -> Iterator[Noted]:
    """Note signals inside the block; its end does not raise for them, but `Noted.check` does."""
    with _handled(Noted()) as noted:
        yield noted


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` for the first signal inside the block, or inside a `noted_signals` around it.

    `stop` is called once, in a signal handler, so it must not wait for a lock.
    """
    with _handled(Noted(stop)):
        yield


class Noted:
    """The first signal of a block, and what it calls, once."""

    def __init__(self, *stops: Callable[[], None]) -> None:
        self._stops = list(stops)
        self.came = False

    def note(self) -> None:
        """Remember that a signal came."""
        self.came = True
        with suppress(IndexError):  # a signal handler may interrupt this, and do it first
            self._stops.pop()()

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came."""
        if self.came:
            raise KeyboardInterrupt


#: The innermost block that the program is in.
_innermost: Noted | None = None


@contextmanager
def _handled(noted: Noted) -> Iterator[Noted]:
    """Handle signals inside the block. The block around it learns of them, and the other way."""
    global _innermost
    outer, _innermost = _innermost, noted

    def handle(number: int, frame: object) -> None:
        del number, frame
        if noted.came:
            end_at_once()
        noted.note()

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        if outer is not None and outer.came:
            noted.note()
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _innermost = outer
        if outer is not None and noted.came:
            outer.came = True
