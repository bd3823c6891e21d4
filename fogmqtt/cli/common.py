"""What both commands share: logging, exit codes, signals, the way to the broker."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fogmqtt.config import BrokerSettings
from fogmqtt.config.settings import PREFIX
from fogmqtt.errors import FogError
from fogmqtt.transport.link import Link

#: What a shell expects of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


def set_up_logging(verbose: int = 0, *, quiet: bool = False) -> None:
    """Log to stderr. `quiet` leaves out what is only news; each `verbose` says more."""
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(
        level=max(logging.DEBUG, level - 10 * verbose),
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
    )


def offer_models(folder: str) -> None:
    """Let operators here and in child processes look for model files in this folder, too."""
    os.environ[f"{PREFIX}MODELS"] = str(Path(folder).absolute())


def guarded(command: Callable[[], int]) -> int:
    """Run a command; a FogError becomes one line on stderr and its exit code."""
    try:
        return command()
    except FogError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM call `stop`; a second one ends the process at once.

    `stop` must be safe in a signal handler: it may only put something into a SimpleQueue.
    """
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        if asked:
            os._exit(INTERRUPTED)
        asked = True
        stop()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def link(broker: BrokerSettings, client_id: str) -> Link:
    """What the transport must know of the broker."""
    return Link(
        url=broker.url,
        client_id=client_id,
        protocol=broker.protocol,
        username=broker.username,
        password=broker.password,
        ca=broker.ca,
        cert=broker.cert,
        key=broker.key,
        keepalive_s=round(broker.keepalive_s),
    )


def positive(what: str) -> Callable[[str], float]:
    """For argparse: text to a finite number above 0 of `what`, in its plural."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what} above 0")
        return number

    return read
