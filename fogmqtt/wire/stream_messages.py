"""What a gateway publishes about its streams, and what comes with a frame that is pushed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec


class StreamAges(msgspec.Struct, frozen=True):
    """Seconds from the capture of a frame until its result was published, in the last seconds."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """Gateway → everybody, retained, every few seconds: the figures of a stream."""

    gateway: str = ""
    pipeline: str = ""
    #: The number of the last frame that was begun.
    seq: int = 0
    epoch: int = 0
    #: Frames a second that came from the source, and results a second.
    fps_in: float = 0.0
    fps_out: float = 0.0
    age_s: StreamAges = StreamAges()
    #: Frames since the stream began: received = all that were dropped + begun + at most one that
    #: waits; begun = published + late + failed + in_flight.
    received: int = 0
    dropped: dict[str, int] = {}
    begun: int = 0
    published: int = 0
    late: int = 0
    failed: int = 0
    in_flight: int = 0
    #: How frames are done: tiles, frames (whole ones on devices) or here (by this gateway).
    split: str = ""
    #: Where the time of capture is from: sensor, rtcp or arrival.
    clock: str = ""
    width: int = 0
    height: int = 0
    codec: str = ""
    reconnects: int = 0
    #: connecting, connected, lost or ended, and why.
    source: str = ""
    reason: str = ""
    #: Frames that the gateway also did whole to compare, and those that differed.
    verified: int = 0
    wrong: int = 0
    #: How often operators with memory began anew because a memory was lost with its device, and
    #: the tiles whose memory is too young for their results to mean much.
    reseeds: int = 0
    warming: int = 0
    #: Why the last frame failed; empty if it did not.
    error: str = ""


class FrameFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Gateway → everybody: the facts of one frame."""

    seq: int
    #: When it was captured, as ISO 8601 with its offset.
    captured_at: str
    age_s: float
    epoch: int
    digest: str
    facts: dict[str, Any]


class StreamEventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Gateway → everybody: something was seen in a stream, is seen still, or is gone."""

    event_type: Literal["start", "update", "end"]
    #: The same in all messages about one event.
    id: str
    stream: str
    #: The class of an object, kind and text of a code, or motion.
    label: str
    #: When it was first and last seen, as ISO 8601 with its offset; no end while it may be there.
    started_at: str
    ended_at: str | None
    #: The best so far, from 0 to 1; of motion, the share of the picture that moves.
    score: float
    #: Left, top, width and height in pixels of the picture that was searched.
    boxes: list[tuple[float, float, float, float]]
    #: All zones in which it has been.
    zones: list[str]
    #: The number of the frame; none if the frames have ended.
    seq: int | None


def utc_text(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def capture_properties(captured_utc: float, clock: str) -> tuple[tuple[str, str], ...]:
    """Return the user properties of a pushed frame: when it was captured, by which clock."""
    return ("captured", utc_text(captured_utc)), ("clock", clock)


def read_capture(properties: Iterable[tuple[str, str]]) -> tuple[float | None, str]:
    """Return the time of capture since 1970, and its clock, from user properties.

    None and an empty text if they are not there or wrong.
    """
    named = dict(properties)
    try:
        captured = datetime.fromisoformat(named.get("captured", ""))
    except ValueError:
        return None, ""
    if captured.tzinfo is None:  # nobody knows where
        return None, ""
    return captured.timestamp(), named.get("clock", "")
