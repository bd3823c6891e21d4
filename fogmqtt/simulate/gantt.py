"""A run as a Gantt chart: a lane per device, with a row per worker.

The spans and marks come from a simulation or from a real run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fogmqtt.images.drawing import Box, Drawing, Label, Line, Shape
from fogmqtt.simulate.record import EventMark, Span, SpanState

_WIDTH = 1200
_TOP, _BOTTOM, _RIGHT = 74, 40, 24
#: The width of a letter in pixels, to leave room for the longest name.
_LETTER = 7
#: The height of all lanes, and the limits of one.
_LANES, _HIGHEST, _LOWEST = 900, 28.0, 1.5
#: A lower lane carries no name.
_NAMED = 9.0
#: The width of the word for a crash.
_CRASH = 34.0
#: A narrower span is merged with its neighbour.
_NARROW = 0.8

#: Two shades each, so that adjacent tiles differ (hues of Okabe and Ito, 2008).
_JOBS = (("#0072b2", "#3b98ce"), ("#009e73", "#3cbf99"), ("#cc79a7", "#dd9dc0"))
_HEDGE = ("#d98200", "#f0a330")
_WASTED, _WASTED_LINES = "#ece7df", "#b9ab93"
_CUT, _CUT_LINES = "#f7d9d3", "#d55e00"
_DOWN, _QUARANTINE = "#d4d4d4", "#fff1b8"
_INK, _FAINT, _BOUND = "#333333", "#e3e3e3", "#d55e00"


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw. `lanes` are devices and their workers, in order; times are seconds."""

    title: str
    lanes: Sequence[tuple[str, int]]
    spans: Sequence[Span]
    marks: Sequence[EventMark]
    end_s: float
    bound_s: float

    @property
    def left(self) -> float:
        return 24 + _LETTER * max(len(name) for name, _ in self.lanes)

    @property
    def lane(self) -> float:
        """A lane's height, including the gap to the next."""
        return max(_LOWEST, min(_LANES / len(self.lanes), _HIGHEST))

    @property
    def gap(self) -> float:
        return self.lane * 0.2 if self.lane >= 4 else 0.0

    @property
    def bottom(self) -> float:
        return _TOP + self.lane * len(self.lanes)

    def x(self, at_s: float) -> float:
        longest = max(self.end_s, self.bound_s if self.bound_s < math.inf else 0.0, 1e-9)
        width = _WIDTH - _RIGHT - self.left
        return self.left + width * max(0.0, min(at_s / longest, 1.0))


def gantt(chart: Chart) -> Drawing:
    """The chart of a run; tool tips name every tile that is wide enough."""
    shapes: list[Shape] = [
        Label(chart.left, 24, chart.title, 15, _INK),
        *_legend(chart),
        *_axis(chart),
        *_idle_workers(chart),
        *_limits(chart),
    ]
    return Drawing(_WIDTH, round(chart.bottom) + _BOTTOM, shapes)


def _idle_workers(chart: Chart) -> Iterator[Shape]:
    tops = {name: _TOP + index * chart.lane for index, (name, _) in enumerate(chart.lanes)}
    workers = dict(chart.lanes)
    for name, top in tops.items():
        if chart.lane >= _NAMED:
            middle = top + chart.lane / 2 + 4
            yield Label(chart.left - 8, middle, name, min(12, round(chart.lane - 1)), anchor="end")
    for mark in chart.marks:
        yield from _absence(chart, mark, tops)
    jobs = {job: index for index, job in enumerate(dict.fromkeys(one.job for one in chart.spans))}
    rows: dict[tuple[str, int], list[Span]] = {}
    for span in chart.spans:
        rows.setdefault((span.device, span.worker), []).append(span)
    for (name, worker), spans in rows.items():
        height = (chart.lane - chart.gap) / workers[name]
        top = tops[name] + chart.gap / 2 + worker * height
        yield from _row(chart, spans, top, height, jobs)
    for mark in chart.marks:
        yield from _event(chart, mark, tops)


def _row(
    chart: Chart, spans: Sequence[Span], top: float, height: float, jobs: dict[str, int]
) -> Iterator[Box]:
    for number, span in enumerate(_joined(chart, spans)):
        left, right = chart.x(span.begin_s), chart.x(span.end_s)
        fill, hatch = _colours(span, jobs[span.job], number)
        gap = 0.5 if right - left > 3 else 0.0
        width = max(right - left - gap, 0.3)
        yield Box(left, top, width, height, fill, hatch, _tip(span) if width > 2 else "")


def _joined(chart: Chart, spans: Iterable[Span]) -> Iterator[Span]:
    """Spans wide enough to be seen: a narrower one is merged with the next of its kind."""
    held: Span | None = None
    for span in sorted(spans, key=lambda one: one.begin_s):
        if held is None:
            held = span
            continue
        close = chart.x(span.begin_s) - chart.x(held.end_s) < _NARROW
        narrow = chart.x(held.end_s) - chart.x(held.begin_s) < _NARROW
        if (
            close
            and narrow
            and (held.state, held.hedge, held.job)
            == (
                span.state,
                span.hedge,
                span.job,
            )
        ):
            held = replace(held, end_s=span.end_s)
        else:
            yield held
            held = span
    if held is not None:
        yield held


def _colours(span: Span, job: int, number: int) -> tuple[str, str]:
    match span.state:
        case SpanState.WASTED:
            return _WASTED, _WASTED_LINES
        case SpanState.CUT:
            return _CUT, _CUT_LINES
        case SpanState.RUNNING:
            # The run ended before the tile did.
            return _WASTED, _WASTED_LINES
        case SpanState.KEPT:
            shades = _HEDGE if span.hedge else _JOBS[job % len(_JOBS)]
            return shades[number % 2], ""


def _tip(span: Span) -> str:
    kind = " (copy)" if span.hedge else ""
    return (
        f"{span.job} tile {span.tile}, attempt {span.attempt}{kind}: {span.state.value}, "
        f"{span.begin_s:.3f} to {span.end_s:.3f} s"
    )


def _absence(chart: Chart, mark: EventMark, tops: dict[str, float]) -> Iterator[Box]:
    """The interval in which a device was away or in quarantine, or the broker was lost."""
    if mark.what not in ("crash", "quarantine", "broker lost"):
        return
    fill = _QUARANTINE if mark.what == "quarantine" else _DOWN
    left, right = chart.x(mark.at_s), chart.x(min(mark.at_s + mark.for_s, chart.end_s))
    tip = f"{mark.device or 'broker'}: {mark.what} at {mark.at_s:.2f} s"
    if mark.device:
        top, height = tops[mark.device] + chart.gap / 2, chart.lane - chart.gap
    else:
        top, height = _TOP, chart.bottom - _TOP
    yield Box(left, top, max(right - left, 0.5), height, fill, tip=tip)


def _event(chart: Chart, mark: EventMark, tops: dict[str, float]) -> Iterator[Shape]:
    if mark.what != "crash":
        return
    x, top = chart.x(mark.at_s), tops[mark.device]
    yield Line(x, top, x, top + chart.lane, _CUT_LINES, 2.0)
    room = chart.x(mark.at_s + mark.for_s) - x
    if chart.lane >= _NAMED and room > _CRASH:
        yield Label(x + 4, top + chart.lane / 2 + 4, "crash", 10, _CUT_LINES)


def _legend(chart: Chart) -> Iterator[Shape]:
    jobs = len({span.job for span in chart.spans})
    first = "result kept" if jobs < 2 else f"result kept ({jobs} jobs)"
    entries = (
        (first, _JOBS[0][0], ""),
        ("copy that was faster", _HEDGE[0], ""),
        ("work for nothing", _WASTED, _WASTED_LINES),
        ("lost in a crash", _CUT, _CUT_LINES),
        ("away", _DOWN, ""),
        ("in quarantine", _QUARANTINE, ""),
    )
    x = chart.left
    for text, fill, hatch in entries:
        yield Box(x, 36, 14, 12, fill, hatch)
        yield Label(x + 20, 46, text, 12)
        x += 34 + 6.4 * len(text)


def _axis(chart: Chart) -> Iterator[Shape]:
    step = _step(max(chart.end_s, 1e-9) / 10)
    count = int(chart.end_s / step) + 1
    for index in range(count):
        at_s = index * step
        x = chart.x(at_s)
        yield Line(x, _TOP, x, chart.bottom + 4, _FAINT)
        yield Label(x, chart.bottom + 18, f"{at_s:g}", 11, anchor="middle")
    yield Label(_WIDTH - _RIGHT, chart.bottom + 34, "seconds", 11, anchor="end")


def _step(least: float) -> float:
    """The next of 1, 2, 5, 10…"""
    power = 10.0 ** math.floor(math.log10(least))
    return float(next(f * power for f in (1, 2, 5, 10) if f * power >= least * 0.999))


def _limits(chart: Chart) -> Iterator[Shape]:
    if chart.bound_s < math.inf:
        x = chart.x(chart.bound_s)
        yield Line(x, _TOP - 6, x, chart.bottom, _BOUND, 1.5, dashed=True)
        yield Label(x - 4, _TOP - 8, f"bound {chart.bound_s:.2f} s", 11, _BOUND, "end")
    end = chart.x(chart.end_s)
    yield Line(end, _TOP - 6, end, chart.bottom, _INK, 1.5)
    yield Label(end, 24, f"end {chart.end_s:.2f} s", 12, _INK, "end")
