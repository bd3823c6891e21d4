"""`fog-gateway replay`: runs the recording of a stream again, and compares."""

from __future__ import annotations

import sys
from pathlib import Path

from fogmqtt.cli.async_program import run_async
from fogmqtt.errors import JobFailed
from fogmqtt.gateway.streams.output_kinds import ResultFolder
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.streams.replay import Recording, ReplayReport, replay
from fogmqtt.images.result_format import parse_result_format
from fogmqtt.log import one_line
from fogmqtt.streams.frame import FrameSource
from fogmqtt.streams.open import open_source
from fogmqtt.streams.settings import Convert, SourceSettings


def replay_recording(folder: Path, out: Path | None) -> int:
    """Run a recording again and return the exit code. `out` is a folder for its results.

    Raises UsageError if it cannot be read, and JobFailed if something comes out differently.
    """
    recording = Recording(folder)
    results = None
    if out is not None:
        results = ResultFolder(out, parse_result_format(recording.head.result_format))

    def publish(result: PublishedFrame) -> None:
        if results is not None:
            results.write(result)

    report = run_async(replay(recording, _open_pictures, publish))
    print(_summary(report), file=sys.stderr)
    if not report.differences:
        return 0
    for text in report.texts:
        print(one_line(text), file=sys.stderr)
    more = report.differences - len(report.texts)
    if more:
        print(f"and {more} more", file=sys.stderr)
    raise JobFailed(f"{report.differences} difference(s) to the recording")


def _open_pictures(folder: Path, convert: Convert) -> FrameSource:
    settings = SourceSettings(source=str(folder), keep="all", convert=convert)
    return open_source("replay", settings)


def _summary(report: ReplayReport) -> str:
    """Return what was done again, in one line."""
    parts = [
        f"{report.received} frames decided again, {report.begun} of them begun",
        f"{report.compared} results computed again and compared",
    ]
    if report.looked_at:
        parts.append(
            f"{report.looked_at} frames looked at again, with {report.events} event(s) and "
            f"{report.snapshots} picture(s) of them"
        )
    if report.not_comparable:
        parts.append(f"{report.not_comparable} not, since devices lost memories of their operators")
    if not report.is_whole:
        parts.append("the recording has no end: its limit was reached, or the gateway was killed")
    return "; ".join(parts)
