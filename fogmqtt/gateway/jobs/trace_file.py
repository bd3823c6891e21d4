"""The course of jobs as a file for ui.perfetto.dev: where each tile was, and when.

The gateway has a track for the steps of each job, one for pasting, and as many for cutting and
encoding as tiles are cut at once. A device has a track for each worker, on which the worker's tiles
follow each other, and tracks for tiles that are on their way to it, in its queue, or on their way
back. Arrows lead from the cut tile over the worker to the pasted result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fogmqtt.core.chrome_trace import ChromeTrace, Lanes, Track
from fogmqtt.gateway.jobs.trace_values import PHASES, JobTraceSnapshot, TracedAttempt

_GATEWAY: Final = 1
#: The first numbers of the tracks of one kind. A device has 1024 workers at most, and each may need
#: several lanes if several jobs use it.
_PASTE, _CUT, _LANE, _WORKER, _LANES_PER_WORKER = 10_000, 20_000, 1_000_000, 1, 64

_CUTTING: Final = ("cut", "encode")
_WORK: Final = ("start", "decode", "compute", "encode_result")
_TRAVEL: Final = ("wire_out", "device_queue", *_WORK, "device", "wire_back")


def trace_file(gateway: str, jobs: Sequence[JobTraceSnapshot]) -> str:
    """Return the JSON text of jobs that one gateway did."""
    writer = _Writer(gateway, min((job.submitted_at for job in jobs), default=0.0))
    for number, job in enumerate(jobs):
        writer.add_steps(number, job)
    writer.add_attempts((job, attempt) for job in jobs for attempt in job.attempts)
    return writer.trace.as_json({"gateway": gateway, "jobs": [_about(job) for job in jobs]})


@dataclass(frozen=True, slots=True)
class _Bar:
    """Some phases of an attempt, on a track of one kind that is free then."""

    begin_s: float
    end_s: float
    process: int
    #: The first track of the kind, and its name.
    first: int
    name: str
    #: Names and lengths of the phases.
    phases: tuple[tuple[str, float], ...]
    #: The place of the attempt among all.
    attempt: int


def _about(job: JobTraceSnapshot) -> dict[str, Any]:
    """What the file says of a job besides its slices."""
    submitted_at = datetime.fromtimestamp(job.submitted_at, UTC).astimezone()
    return {
        "job": job.job,
        "name": job.name,
        "pipeline": job.pipeline,
        "submitted_at": submitted_at.isoformat(timespec="milliseconds"),
        "seconds": round(job.seconds, 6),
        "attempts": len(job.attempts),
        "attempts_left_out": job.left_out,
        **({"traceparent": job.traceparent} if job.traceparent else {}),
    }


class _Writer:
    """Places jobs of one gateway on tracks. Times are seconds since the first was submitted."""

    def __init__(self, gateway: str, first_at: float) -> None:
        self.trace = ChromeTrace()
        self._first_at = first_at
        self._processes: dict[str, int] = {}
        self._lanes: dict[tuple[int, int], Lanes] = {}
        self._named: set[Track] = set()
        self.trace.name_process(_GATEWAY, f"gateway {gateway}")

    def zero(self, job: JobTraceSnapshot) -> float:
        """Return when the job was submitted."""
        return job.submitted_at - self._first_at

    def add_steps(self, number: int, job: JobTraceSnapshot) -> None:
        """Add the steps of a job: one track, and one more for each that runs beside."""
        tracks = {"job": 0}
        zero, main = self.zero(job), Track(_GATEWAY, 1 + 4 * number)
        self.trace.name_track(main, f"job {job.name}")
        self.trace.add_slice(
            main, job.name, zero, job.seconds, category="job", args={"pipeline": job.pipeline}
        )
        for span in job.spans:
            index = tracks.setdefault(span.track, len(tracks))
            track = Track(_GATEWAY, main.number + index)
            self._name(track, f"job {job.name}: {span.track}" if index else f"job {job.name}")
            # A step that has not ended when the job does ends with it.
            end_s = min(span.end_s, job.seconds)
            self.trace.add_slice(
                track, span.name, zero + span.begin_s, end_s - span.begin_s, category="step"
            )

    def add_attempts(self, attempts: Iterable[tuple[JobTraceSnapshot, TracedAttempt]]) -> None:
        """Add all attempts, with an arrow through the bars of each."""
        listed = list(attempts)
        bars = [
            bar for number, (job, one) in enumerate(listed) for bar in self._bars(number, job, one)
        ]
        steps: dict[int, list[tuple[Track, float]]] = {}
        for bar in sorted(bars, key=lambda bar: bar.begin_s):
            track = self._lane(bar)
            self._draw(bar, track, *listed[bar.attempt])
            steps.setdefault(bar.attempt, []).append((track, bar.begin_s))
        for number, passed in steps.items():
            if len(passed) > 1:
                self.trace.add_flow(f"tile {listed[number][1].tile}", passed)

    def _bars(self, number: int, job: JobTraceSnapshot, one: TracedAttempt) -> Iterator[_Bar]:
        process = self._process(one.device)
        worker = _WORKER + one.worker * _LANES_PER_WORKER
        kinds = [
            (_CUTTING, _GATEWAY, _CUT, "cut and encode"),
            (_TRAVEL, process, _LANE, "tiles on their way"),
            (("paste",), _GATEWAY, _PASTE, "paste"),
        ]
        if one.worker >= 0:
            kinds.append((_WORK, process, worker, f"worker {one.worker}"))
        for names, where, first, title in kinds:
            begin = PHASES.index(names[0])
            parts = tuple(zip(names, one.phases[begin : begin + len(names)], strict=True))
            seconds = sum(length for _, length in parts)
            if seconds > 0:
                begin_s = self.zero(job) + one.begin_s + sum(one.phases[:begin])
                yield _Bar(begin_s, begin_s + seconds, where, first, title, parts, number)

    def _draw(self, bar: _Bar, track: Track, job: JobTraceSnapshot, one: TracedAttempt) -> None:
        """Draw a bar, and one in it for each of its phases."""
        self.trace.add_slice(
            track,
            f"tile {one.tile}",
            bar.begin_s,
            bar.end_s - bar.begin_s,
            category=one.end.value,
            args=_args(one, job),
        )
        begin_s = bar.begin_s
        for phase, seconds in bar.phases:
            if seconds > 0 and len(bar.phases) > 1:
                # Rounding must not let a phase reach out of its bar.
                within_s = min(seconds, bar.end_s - begin_s)
                self.trace.add_slice(track, phase, begin_s, within_s, category="phase")
            begin_s += seconds

    def _process(self, device: str) -> int:
        if device not in self._processes:
            self._processes[device] = _GATEWAY + 1 + len(self._processes)
            self.trace.name_process(self._processes[device], f"device {device}")
        return self._processes[device]

    def _lane(self, bar: _Bar) -> Track:
        """Return a track of the bar's kind that is free. Ask in the order of the begins."""
        lanes = self._lanes.setdefault((bar.process, bar.first), Lanes())
        lane = lanes.take(bar.begin_s, bar.end_s)
        track = Track(bar.process, bar.first + lane)
        self._name(track, f"{bar.name} ({lane + 1})" if lane else bar.name)
        return track

    def _name(self, track: Track, name: str) -> None:
        if track not in self._named:
            self._named.add(track)
            self.trace.name_track(track, name)


def _args(one: TracedAttempt, job: JobTraceSnapshot) -> dict[str, Any]:
    core, phases = one.core, zip(PHASES, one.phases, strict=True)
    return {
        "job": job.job,
        "stage": one.stage,
        "attempt": one.attempt,
        "end": one.end.value,
        "hedge": one.is_hedge,
        "core": f"{core.width}x{core.height} at row {core.top}, column {core.left}",
        "bytes": {"out": one.bytes_out, "back": one.bytes_back},
        "ms": {phase: round(seconds * 1000, 3) for phase, seconds in phases if seconds},
        **({"reason": one.reason} if one.reason else {}),
    }
