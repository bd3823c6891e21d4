"""Every exception of fogmqtt; this tree is the documentation.

FogError
├── UsageError            what the user typed or configured cannot be done
│   ├── ConfigError       a configuration file or environment variable
│   ├── PipelineError     a pipeline's text: unknown operator, unknown or bad parameter
│   └── PlanError         a tile plan that this image cannot have
├── ImageError            the image file: not one, damaged, too large, of a kind we refuse
├── OperatorError         an operator cannot take this image, or gave something impossible
├── WireError             a message that is not ours, damaged, or of another shape
│   └── UnsupportedVersion
├── TransportError        the way to the broker
│   ├── NoBroker          nothing answers, or it refuses us
│   ├── NotConnected      the link is down at this moment
│   ├── PublishRefused    the broker did not take a message, for example because of its access list
│   └── TooLarge          a message over the broker's limit, refused before it is sent
├── DuplicateId           another process is alive under our id
├── JobFailed             a job ended without a result
└── ListenerDropped       a listener to a gateway's events did not keep up

The command line turns a FogError into one line on stderr and its exit code; any other
exception is a bug and shows its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class FogError(Exception):
    """Base of all errors that we raise on purpose."""

    #: What the process exits with if nobody handles the error.
    exit_code: ClassVar[int] = 1


class UsageError(FogError):
    """What was asked for cannot be done as asked."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or environment variable is wrong."""


class PipelineError(UsageError):
    """A pipeline's text is wrong."""


class PlanError(UsageError):
    """The image cannot be cut like this."""


class ImageError(FogError):
    """The image file cannot be used."""


class OperatorError(FogError):
    """An operator cannot take this image, or answered with something impossible."""


class WireError(FogError):
    """A message cannot be understood or must not be believed."""


class UnsupportedVersion(WireError):
    """A message of a protocol version that we do not speak."""


class TransportError(FogError):
    """The way to the broker."""

    exit_code = 3


class NoBroker(TransportError):
    """No broker answers at the configured address, or it refuses us."""


class NotConnected(TransportError):
    """The link to the broker is down at this moment."""


class PublishRefused(TransportError):
    """The broker answered that it did not take a message."""

    exit_code = 1


class TooLarge(TransportError):
    """A message is larger than the broker takes; sending it would jam the connection."""

    exit_code = 1


class DuplicateId(FogError):
    """Another process is alive under the same id."""

    exit_code = 2


class JobFailed(FogError):
    """A job ended without a result; the message tells the story."""


class ListenerDropped(FogError):
    """A listener to a gateway's events did not keep up and gets no more of them."""
