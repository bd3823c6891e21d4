"""Every exception of fogmqtt.

FogError
├── UsageError            a command or configuration that is impossible
│   ├── ConfigError       a configuration file or environment variable
│   ├── PipelineError     a pipeline's text: unknown operator, unknown or bad parameter
│   └── PlanError         a tile plan that does not fit the image
├── ImageError            an image file that is no image, damaged, too large or unsupported
├── OperatorError         an operator that does not accept an image, or returns a wrong result
├── WireError             a message that is invalid or damaged
│   └── UnsupportedVersion
├── TransportError        the connection to the broker
│   ├── NoBroker          no broker answers, or it refuses the connection
│   ├── NotConnected      there is no connection at this moment
│   ├── PublishRefused    a message that the broker did not accept, such as by its access list
│   └── TooLarge          a message over the broker's limit, refused before it is sent
├── DuplicateId           another process runs under the same id
├── JobFailed             a job that ended without a result
└── ListenerDropped       a listener to the events of a gateway that did not keep up

The command line prints a FogError as one line on stderr and exits with its exit code. Any other
exception is a bug, and its traceback is printed.
"""

from __future__ import annotations

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


class TransportError(FogError):
    """The connection to the broker failed."""

    exit_code = 3


class NoBroker(TransportError):
    """No broker answers at the configured address, or it refuses the connection."""


class NotConnected(TransportError):
    """There is no connection to the broker at this moment."""


class PublishRefused(TransportError):
    """The broker answered that it did not take a message."""

    exit_code = 1


class TooLarge(TransportError):
    """A message exceeds the broker's limit. If it were sent, the broker would disconnect."""

    exit_code = 1


class DuplicateId(FogError):
    """Another process runs under the same id."""

    exit_code = 2


class JobFailed(FogError):
    """A job ended without a result. The message explains why."""


class ListenerDropped(FogError):
    """A listener to the events of a gateway did not keep up and gets no more of them."""
