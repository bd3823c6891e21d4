"""Says in words how a stream does."""

from __future__ import annotations

from typing import Literal

from fogmqtt.core.streaming.books import Books
from fogmqtt.gateway.streams.stream import StreamView
from fogmqtt.gateway.streams.stream_topics import stream_state
from fogmqtt.log import one_line
from fogmqtt.wire.service_messages import StreamCard

Tone = Literal["good", "warn", "bad", "quiet"]


def stream_card(
    name: str,
    view: StreamView | None,
    gateway: str,
    *,
    enabled: bool,
    problem: str,
    rival: str,
    motion: bool | None,
) -> StreamCard:
    """Return a stream as people see it; without a view it does not run."""
    if view is not None:
        sentence, tone = _running(view, rival)
        state = stream_state(view, gateway)
        return StreamCard(
            name=name, status="online", sentence=sentence, tone=tone, motion=motion, state=state
        )
    if not enabled:
        return StreamCard(
            name=name, status="disabled", sentence="It is switched off.", tone="quiet"
        )
    if problem:
        return StreamCard(
            name=name,
            status="offline",
            sentence=f"It cannot run, and is tried again: {problem}",
            tone="bad",
        )
    return StreamCard(name=name, status="offline", sentence="Its source has ended.", tone="quiet")


def rival_text(gateway: str) -> str:
    """Return what to say of another gateway with a stream of the same name."""
    return (
        f"Gateway {gateway} has a stream of this name, too, and the results of both are mixed. "
        "Rename one of them."
    )


def _running(view: StreamView, rival: str) -> tuple[str, Tone]:
    if rival:
        return rival_text(rival), "bad"
    source, books = view.source, view.books
    reason = f": {one_line(source.reason)}" if source.reason else "."
    if source.state == "lost":
        return f"The camera is away{reason}", "bad"
    if source.state == "connecting":
        return f"Connects to the camera{reason}", "warn"
    if view.wrong:
        return f"{view.wrong} of {view.verified} compared frames differ from one machine.", "bad"
    if view.error:
        return f"The last frame failed: {one_line(view.error)}", "bad"
    if not books.published:
        return _nothing_yet(books)
    if not view.fps_out:
        return "No result came out for 10 s.", "warn"
    slow = books.superseded + books.too_late + books.late > books.published
    if slow:
        return "Runs. The fleet cannot do every frame, so the newest ones win.", "good"
    return "Runs.", "good"


def _nothing_yet(books: Books) -> tuple[str, Tone]:
    if books.no_device:
        return "No device can do its frames; start one, or set gateway.local: auto.", "bad"
    if books.received:
        return "Frames come. No result is out yet.", "warn"
    return "Connected. No frame came yet.", "warn"
