"""What a stream's process and the program that started it say to each other."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fogmqtt.core.streaming.source_steps import SourceStep
from fogmqtt.streams.frame import Clock
from fogmqtt.streams.settings import SourceSettings

#: Pictures that may be in the hands of the program at the same time.
MAX_SLOTS: Final = 16
#: Seconds between two reports of a process that is not asked for pictures.
REPORT_S: Final = 0.5

#: What is given: pixels as `convert` says, or a JPEG file.
Form = Literal["pixels", "jpeg"]


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """What a process counted since it started; as `SourceCounts`."""

    received: int = 0
    given: int = 0
    decimated: int = 0
    superseded: int = 0
    gap: int = 0
    #: What led to this since the last tally, if the source is recorded.
    steps: tuple[SourceStep, ...] = ()


class OpenSource(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Open the source."""

    settings: SourceSettings
    #: Whether the tallies have steps.
    records: bool = False


class Want(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Give the newest picture that was not given yet, once."""

    form: Form


class Release(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The memory of a picture may be used for another one."""

    slot: int


class Push(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A JPEG arrived, which is in the file of the descriptor that comes along."""

    captured_at: float
    captured_utc: float
    clock: Clock


class Started(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The process is there."""


class Taken(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A pushed picture was read; another one may be sent."""


class SourceReport(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the source is doing.

    `alive_at` is when it last showed that it is not frozen, in monotonic seconds; 0 if it did not
    yet.
    """

    tally: Tally
    alive_at: float
    codec: str
    width: int
    height: int


class Given(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A picture, in the memory of a slot.

    The first use of a slot, and each larger size, brings the descriptor of its memory along. Pixels
    come first, and then the `original_bytes` of the file that the camera sent.
    """

    slot: int
    is_new_memory: bool
    number: int
    captured_at: float
    captured_utc: float
    clock: Clock
    width: int
    height: int
    channels: int
    #: Bytes of the pixels; 0 for a JPEG.
    pixel_bytes: int
    original_bytes: int
    codec: str
    #: Seconds of decoding since the picture before, also of those that were not given.
    decode_s: float
    tally: Tally


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The source is lost. The process waits until it is told to open it again."""

    reason: str
    tally: Tally


class AtEnd(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The file or folder has no more frames, and the last one was given."""

    tally: Tally


Command = OpenSource | Want | Release | Push
Answer = Started | Taken | SourceReport | Given | Failed | AtEnd
