"""Every exception of fogmqtt.

FogError
├── UsageError            a command or configuration that is impossible
│   ├── ConfigError       a configuration file or environment variable
│   │   └── SpoolInUse    another gateway uses the spool folder
│   ├── BadInvitation     an invitation to a board that is damaged, or none
│   ├── PipelineError     a pipeline's text: unknown operator, unknown or bad parameter
│   └── PlanError         a tile plan that does not fit the image
├── ImageError            an image file that is no image, damaged, too large or unsupported
├── OperatorError         an operator that does not accept an image, or returns a wrong result
├── WireError             a message that is invalid or damaged
│   └── UnsupportedVersion
├── TransportError        the connection to the broker; an OSError, too
│   ├── NoBroker          no broker answers, or it refuses the connection
│   │   └── NoGateway     no gateway is found on this network, or none lets this board in
│   ├── NotConnected      there is no connection at this moment
│   ├── NoAnswer          a gateway that does not answer a request
│   ├── PublishRefused    a message that the broker did not accept, such as by its access list
│   └── TooLarge          a message over the broker's limit, refused before it is sent
├── JoinRefused           a board that may not join, or a gateway that is not the invitation's
├── Revoked               the broker knows this device's certificate as revoked
├── DuplicateId           another process runs under the same id
├── JobFailed             a job that ended without a result
│   └── JobTimedOut       a job that was not done in its time; a TimeoutError, too
│       └── NoDevice      the same, and no device was there that could have begun it
├── WrongMemory           a tile of a stream for another version of its memory than the worker has
├── SourceEnded           the last frame of a file was given
└── ListenerDropped       a listener to the events of a gateway that did not keep up

The command line prints a FogError as one line on stderr and exits with its exit code. Any other
exception is a bug, and its traceback is printed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar


class FogError(Exception):
    """The base of all errors that fogmqtt raises on purpose."""

    #: The exit code of the process if no handler catches the error.
    exit_code: ClassVar[int] = 1


class UsageError(FogError):
    """A command or configuration is impossible."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or environment variable is wrong."""


class SpoolInUse(ConfigError):
    """Another gateway uses the spool folder. `who` names its id, process and host."""

    def __init__(self, text: str, who: str) -> None:
        super().__init__(text)
        self.who = who


class BadInvitation(UsageError):
    """The invitation of a board is damaged, cut off, or of another version."""


class PipelineError(UsageError):
    """A pipeline's text is wrong."""


class PlanError(UsageError):
    """A tile plan does not fit the image."""


class ImageError(FogError):
    """The image file cannot be used."""


class OperatorError(FogError):
    """An operator does not accept an image, or returned a wrong result."""


class WireError(FogError):
    """A message is invalid or damaged."""


class UnsupportedVersion(WireError):
    """A message has another protocol version."""


class TransportError(FogError, OSError):
    """The connection to the broker failed."""

    exit_code = 3


class NoBroker(TransportError):
    """No broker answers at the configured address, or it refuses the connection."""


class NoGateway(NoBroker):
    """No gateway is found on this network, or none lets this board in."""


class NotConnected(TransportError):
    """There is no connection to the broker at this moment."""


class NoAnswer(TransportError):
    """A gateway does not answer a request: it is offline, or of a version without the service."""


class PublishRefused(TransportError):
    """The broker answered that it did not take a message."""

    exit_code = 1


class TooLarge(TransportError):
    """A message exceeds the broker's limit. If it were sent, the broker would disconnect."""

    exit_code = 1


class JoinRefused(FogError):
    """A board may not join, or the gateway is not the one that invited it."""

    exit_code = 2


class WrongClock(JoinRefused):
    """By this board's clock the gateway's certificate does not count; the network may set it."""

    # As without a gateway: a service starts again, and may find the clock set.
    exit_code = 3


class Revoked(FogError):
    """The broker knows the certificate of this device as revoked, so no later try helps."""

    exit_code = 2


class DuplicateId(FogError):
    """Another process runs under the same id."""

    exit_code = 2


class JobFailed(FogError):
    """A job ended without a result. The message explains why."""


class JobTimedOut(JobFailed, TimeoutError):
    """A job was not done in the time that its request gave it."""


class NoDevice(JobTimedOut):
    """A job was not done in its time, since no device was online."""


class BudgetExceeded(FogError):
    """A result was not there in the time in which it is of use."""


class StreamOutputFailed(FogError):
    """A result of a stream could not be written."""


class WrongMemory(FogError):
    """A worker has the version `have` of a tile's memory, and not `needed`; -1 for none."""

    def __init__(self, have: int, needed: int) -> None:
        what = f"the version {have}" if have >= 0 else "no memory of this epoch"
        super().__init__(f"the task needs the version {needed} of the tile's memory, not {what}")
        self.have = have


class SourceEnded(FogError):
    """A source of frames that ends gave its last one."""


class ListenerDropped(FogError):
    """A listener to the events of a gateway did not keep up and gets no more of them."""


def missing_package(problem: ImportError) -> str:
    """Return what to say of a package of others that cannot be imported; empty for our own."""
    if (problem.name or "").partition(".")[0] == "fogmqtt":
        return ""
    return f"{problem}; install it again: pip install --force-reinstall fogmqtt"


def reason_of(problem: OSError, path: Path) -> str:
    """Return why a file or folder cannot be used, and whose it is if it is another user's."""
    reason = problem.strerror or str(problem)
    try:
        owner = path.stat().st_uid
        if owner == os.geteuid():
            return reason
    except OSError:
        return reason
    return f"{reason} (it belongs to {_user_name(owner)}, and this is {_user_name(os.geteuid())})"


def _user_name(uid: int) -> str:
    import pwd  # only of use for errors, and not on every system

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under any number
        return f"user {uid}"
