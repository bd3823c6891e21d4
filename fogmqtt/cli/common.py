"""What all commands share: exit codes, the options about the log, and numbers among options."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from typing import TypeAlias

from fogmqtt.cli.leaving import INTERRUPTED
from fogmqtt.cli.log_format import report_line
from fogmqtt.errors import FogError, UsageError, missing_package

#: argparse names this type with an underscore, and gives no other.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def report_errors(command: Callable[[], int]) -> int:
    """Run a command and return its exit code.

    A FogError, and a package that cannot be imported, are printed to stderr as one line.
    """
    try:
        return command()
    except FogError as problem:
        report_line(logging.ERROR, "error: ", str(problem))
        return problem.exit_code
    except ImportError as problem:
        if not (text := missing_package(problem)):
            raise
        report_line(logging.ERROR, "error: ", f"a package is missing: {text}")
        return UsageError.exit_code
    except KeyboardInterrupt:
        report_line(logging.WARNING, "", "interrupted")
        return INTERRUPTED


def keep_files_private() -> None:
    """Let other users of this machine read no file that this process makes: images, keys, logs."""
    os.umask(os.umask(0o077) | 0o077)


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add the options about the log."""
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        help="of the log: lines for people, or one JSON object for each (default: log_format)",
    )


def sentence(text: str) -> str:
    """Return the help of a command as the description that its own help begins with."""
    return f"{text[0].upper()}{text[1:]}."


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
