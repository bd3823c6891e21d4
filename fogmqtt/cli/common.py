"""What both commands share: logging, exit codes, signals, and the link to the broker."""

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
from typing import TYPE_CHECKING, NoReturn

from fogmqtt.errors import FogError

if TYPE_CHECKING:
    from fogmqtt.config import BrokerSettings
    from fogmqtt.transport.link import Link

#: The exit code of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


def set_up_logging(verbose: int = 0, *, quiet: bool = False) -> None:
    """Log to stderr from level INFO on, or WARNING if `quiet`; each `verbose` is a level more."""
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(
        level=max(logging.DEBUG, level - 10 * verbose),
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
    )


def set_model_folder(folder: str) -> None:
    """Let operators in this process and its children find model files in this folder."""
    from fogmqtt.config.settings import PREFIX

    os.environ[f"{PREFIX}MODELS"] = str(Path(folder).absolute())


def report_errors(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; a FogError is printed to stderr as one line."""
    try:
        return command()
    except FogError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` for SIGINT and SIGTERM inside the block; a second signal ends the process.

    `stop` runs in a signal handler, so it must not wait for a lock.
    """
    is_stopping = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        del number, frame
        if is_stopping:
            os._exit(INTERRUPTED)
        is_stopping = True
        stop()

    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def make_link(broker: BrokerSettings, client_id: str) -> Link:
    """Return the settings of the transport for this broker and client id."""
    from fogmqtt.transport.link import Link
    from fogmqtt.transport.probe import own_url

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
        client=broker.client,
        # An answer to whoever waits this long for a broker: the reason comes a little earlier.
        connect_timeout_s=0.9 * broker.connect_timeout_s,
        own_url=own_url(broker.url) if broker.embedded == "auto" else "",
    )


def positive_number(unit: str) -> Callable[[str], float]:
    """Return a type for argparse: a finite number above 0. `unit` is a plural, for errors."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} above 0")
        return number

    return parse


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its exit code.

    Python cannot end threads whose work is no longer wanted, so the process ends without them.
    """
    code = main()
    # A command that has not loaded this module has no such threads.
    threads = sys.modules.get("fogmqtt.gateway.threads")
    if threads is not None and threads.abandoned():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
