"""`fog-gateway stream`: one stream, from a camera or file through the fleet, until it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from fogmqtt.cli.async_program import run_async
from fogmqtt.cli.signals import noted_signals
from fogmqtt.config import GatewayConfig, RecordSettings, StreamSettings
from fogmqtt.core.streaming.books import Books
from fogmqtt.errors import JobFailed, UsageError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.streams.file_outputs import frame_line
from fogmqtt.gateway.streams.outputs import PublishedFrame, StreamOutput
from fogmqtt.gateway.streams.stream import LiveStream, StreamView
from fogmqtt.gateway.streams.streams import check_stream, source_settings
from fogmqtt.gateway.threads import IoThread
from fogmqtt.log import one_line
from fogmqtt.setup.brokers import connector, embedded_broker, one_off_id
from fogmqtt.streams.frame import FrameSource
from fogmqtt.streams.open import open_source
from fogmqtt.streams.settings import kind_of

S = TypeVar("S", StreamSettings, RecordSettings)

#: The stream's name in messages of this command.
_NAME: Final = "stream"
#: Seconds between two lines on a terminal, where each replaces the one before.
_LIVE_S: Final = 0.5
#: Seconds until the first line elsewhere, and between two lines.
_FIRST_S: Final = 2.0
_PLAIN_S: Final = 5.0


class _End(NamedTuple):
    """A stream at its end, and its recording."""

    view: StreamView
    recording: Path | None


class LinesOutput:
    """Writes a line of JSON for each result to stdout.

    `on_closed` is called when nobody reads stdout any more, as after `| head`.
    """

    needs_original = False

    def __init__(self) -> None:
        self.on_closed: Callable[[], None] = lambda: None
        self._thread = IoThread("stream lines")

    async def publish(self, frame: PublishedFrame) -> None:
        """Write a line."""
        try:
            await self._thread.call(partial(_write_line, frame_line(frame)))
        except BrokenPipeError:
            _discard_stdout()
            self.on_closed()

    async def close(self) -> None:
        """Stdout stays open."""
        self._thread.close()


def _write_line(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _discard_stdout() -> None:
    """Drop what is written to stdout: Python would complain about the rest at its end."""
    with Path(os.devnull).open("wb") as devnull:
        os.dup2(devnull.fileno(), sys.stdout.fileno())


def stream(
    config: GatewayConfig, settings: StreamSettings, out: str | None, for_s: float | None
) -> int:
    """Run a stream until it ends, for some seconds, or until Ctrl-C, and return the exit code.

    `out` is a folder, a video (.mp4), lines (.jsonl), "-" for lines on stdout, or None.

    Raises UsageError, NoBroker, and JobFailed if no frame came out or one was wrong.
    """
    settings = replace(settings, output=_outputs(out))
    check_stream(config, settings)
    last: list[_End] = []
    with noted_signals() as noted, embedded_broker(config) as broker:
        noted.check()
        gateway_id = one_off_id(config)
        connect = connector(config, gateway_id, broker)
        with suppress(KeyboardInterrupt):  # the usual end of a stream
            run_async(_run(config, gateway_id, connect, settings, out == "-", for_s, last))
    if not last:
        return 0
    view, recording = last[-1]
    print(_summary(view), file=sys.stderr)
    if recording is not None:
        print(f"recorded; run it again with: fog-gateway replay {recording}", file=sys.stderr)
    if view.wrong:
        raise JobFailed(f"{view.wrong} of {view.verified} compared frames differ from one machine")
    if not view.books.published:
        raise JobFailed(_why_nothing(view))
    return 0


def _outputs(out: str | None) -> tuple[str, ...]:
    """Return the words of `StreamSettings.output` for the option."""
    if out in (None, "-"):
        return ()
    kinds = {".mp4": "file", ".jsonl": "facts"}
    return (f"{kinds.get(Path(out).suffix, 'folder')}:{out}",)


async def _run(
    config: GatewayConfig,
    gateway_id: str,
    connect: Connect,
    settings: StreamSettings,
    prints: bool,
    for_s: float | None,
    last: list[_End],
) -> None:
    within_s = config.broker.connect_timeout_s
    async with Gateway(config, gateway_id, connect, broker_within_s=within_s) as gateway:
        await gateway.settled()
        records = bool(settings.record.folder)
        source: FrameSource = open_source(_NAME, source_settings(settings), records=records)
        outputs: list[tuple[str, StreamOutput]] = gateway.stream_outputs(_NAME, settings)
        lines = LinesOutput() if prints else None
        if lines is not None:
            outputs.append(("stdout", lines))
        live = gateway.open_stream(_NAME, settings, source, outputs)
        display = asyncio.create_task(_show(live))
        try:
            async with asyncio.timeout(for_s) as limit:
                if lines is not None:
                    lines.on_closed = partial(_end_now, limit)
                await gateway.run_stream(live)
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            display.cancel()
            await asyncio.gather(display, return_exceptions=True)
            last.append(_End(live.view(), live.recording))
            await source.close()


def _end_now(limit: asyncio.Timeout) -> None:
    """End what a timeout limits, unless it ends already."""
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


async def _show(live: LiveStream) -> None:
    """Show the figures on stderr: one line that changes, or now and then a line."""
    is_terminal = sys.stderr.isatty()
    shown = ""
    pause_s = _LIVE_S if is_terminal else _FIRST_S
    try:
        while True:
            await asyncio.sleep(pause_s)
            text = _line(live.view())
            if is_terminal:
                print(f"\r{text.ljust(len(shown))}", end="", file=sys.stderr, flush=True)
                shown = text
            else:
                print(text, file=sys.stderr, flush=True)
                pause_s = _PLAIN_S
    finally:
        if shown:
            print(f"\r{' ' * len(shown)}\r", end="", file=sys.stderr, flush=True)


def _line(view: StreamView) -> str:
    """Return the figures of the last seconds in one line."""
    source = view.source
    if source.state != "connected" and not view.fps_in:
        return one_line(f"{source.state}: {source.reason}" if source.reason else source.state)
    ways = {"tiles": "by tiles", "frames": "whole frames on devices", "here": "on this machine"}
    parts = [
        f"{view.fps_in:.1f} fps in, {view.fps_out:.1f} out",
        f"age p99 {1000 * view.age_s.p99:.0f} ms",
        _drops(view.books),
        ways.get(view.way, ""),
        one_line(view.error),
    ]
    return "; ".join(filter(None, parts))


def _drops(books: Books) -> str:
    counts = {**books.drops(), "late": books.late, "failed": books.failed}
    named = [f"{count} {why.replace('_', ' ')}" for why, count in counts.items() if count]
    return "dropped: " + ", ".join(named) if named else "nothing dropped"


def _summary(view: StreamView) -> str:
    """Return the last line of the command."""
    ages, checked = view.age_s, ""
    if view.verified:
        checked = f"; {view.verified} compared with one machine, {view.wrong} wrong"
    return (
        f"{view.books.received} frames, {view.books.published} came out; age p50 "
        f"{1000 * ages.p50:.0f} ms, p99 {1000 * ages.p99:.0f} ms; {_drops(view.books)}{checked}"
    )


def _why_nothing(view: StreamView) -> str:
    source = view.source
    if not view.books.received:
        why = f"the source gave no frame: {source.reason or source.state}"
    elif view.error:
        why = view.error
    elif view.books.no_device:
        why = "no device can do it; start one (fog-device --id eya), or set gateway.local: auto"
    else:
        why = _drops(view.books)
    return f"no frame came out: {one_line(why)}"


def settings_for(config: GatewayConfig, source: str, changes: Mapping[str, Any]) -> StreamSettings:
    """Return the settings of a configured stream, or of a source, changed by options.

    Of a file or folder all frames are done, unless an option says otherwise. A change that is None
    changes nothing. Raises UsageError if the source is a path where nothing is.
    """
    known = config.streams.get(source)
    if known is None and kind_of(source) == "file" and not Path(source).exists():
        raise UsageError(
            f"{source!r} is no file, no folder and no configured stream; "
            "give one, or an address such as rtsp://camera/h264"
        )
    is_patient = Path(source).is_file() or Path(source).is_dir()
    settings = known or StreamSettings(source=source, keep="all" if is_patient else "latest")
    return changed(settings, changes)


def changed(settings: S, changes: Mapping[str, Any]) -> S:
    """Return settings changed by options. A change that is None changes nothing."""
    return replace(settings, **{key: one for key, one in changes.items() if one is not None})
