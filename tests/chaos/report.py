"""What happened, for people: a table, and a picture of who was harmed while which job ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from fogmqtt.images.drawing import Box, Drawing, Label, Line, Shape
from tests.chaos.play import Played
from tests.chaos.schedule import CUT, ECHO, OOM, PARTIES, Fault
from tests.chaos.verdict import EXACT, PLANTED, REFUSED, WRONG

_COLUMNS = (
    *("seed", "faults", "jobs", EXACT, PLANTED, REFUSED, WRONG, "slowest s", "retries"),
    *("duplicates", "touched", "seconds", "bugs"),
)
_COLOURS = {EXACT: "#009e73", PLANTED: "#8fbfdc", REFUSED: "#c9c9c9", WRONG: "#d00000"}
_FAULT = "#e69f00"
_LEFT, _TOP, _LANE, _WIDTH = 110, 70, 26, 1200
#: Over in a moment.
_SHORT = (CUT, OOM, ECHO)
#: What a letter needs.
_LETTER = 6


def table(runs: Sequence[Played]) -> str:
    """A line for each run, in Markdown, and one for all."""
    rows = [[str(run.schedule.seed), *map(str, _figures([run]))] for run in runs]
    rows.append(["all", *map(str, _figures(runs))])
    lines = ["| " + " | ".join(row) + " |" for row in ([*_COLUMNS], *rows)]
    return "\n".join((lines[0], "|" + "---|" * len(_COLUMNS), *lines[1:])) + "\n"


def kinds(runs: Sequence[Played]) -> str:
    """How often each fault met each party."""
    met = Counter((one.kind, one.party) for run in runs for one in run.schedule.faults)
    lines = [f"| {kind} | {party} | {count} |" for (kind, party), count in sorted(met.items())]
    return "\n".join(("| fault | party | times |", "|---|---|---|", *lines)) + "\n"


def problems(run: Played) -> Iterator[str]:
    """A paragraph for each thing that must not be."""
    for verdict in run.verdicts:
        for problem in verdict.problems:
            job = verdict.evidence.job
            yield f"seed {run.schedule.seed}: {job.reply} ({job.pipeline}): {problem}"
    for problem in run.problems:
        yield f"seed {run.schedule.seed}: {problem}"


def _figures(runs: Sequence[Played]) -> tuple[object, ...]:
    outcomes = sum((run.outcomes for run in runs), Counter[str]())
    slowest = max(
        (verdict.evidence.seconds for run in runs for verdict in run.verdicts), default=0.0
    )
    return (
        sum(len(run.schedule.faults) for run in runs),
        sum(len(run.verdicts) for run in runs),
        *(outcomes[one] for one in (EXACT, PLANTED, REFUSED, WRONG)),
        f"{slowest:.1f}",
        sum(run.retries for run in runs),
        sum(run.duplicates for run in runs),
        sum(run.touched for run in runs),
        f"{sum(run.seconds for run in runs):.0f}",
        sum(1 for run in runs for _ in problems(run)),
    )


def timeline(run: Played) -> Drawing:
    """A lane per party with what was done to it; below, a lane of jobs for as many as ran."""
    lanes = [*PARTIES, "disk", "all"]
    end = max(run.seconds, 1.0)
    scale = (_WIDTH - _LEFT - 20) / end
    shapes: list[Shape] = [Label(_LEFT, 26, _title(run), 15), *_legend()]
    y = float(_TOP)
    for lane in lanes:
        shapes.append(Label(_LEFT - 8, y + 17, lane, 12, anchor="end"))
        faults = [one for one in run.schedule.faults if _lane(one) == lane]
        rows = _rows([(one.at, one.at + _drawn_s(one, scale)) for one in faults])
        for fault, row in zip(faults, rows, strict=True):
            shapes += _fault(fault, y + row * _LANE, scale)
        y += _LANE * (max(rows, default=0) + 1)
    rows = _rows([(begin, max(end, begin + 0.3)) for begin, end in run.spans])
    shapes += _jobs(run, rows, y + 8, scale)
    bottom = y + 9 * (max(rows, default=0) + 1) + 12
    return Drawing(_WIDTH, round(bottom) + 16, [*_seconds(end, scale, bottom), *shapes])


def _seconds(end: float, scale: float, bottom: float) -> Iterator[Shape]:
    for second in range(0, int(end) + 1, 5):
        x = _LEFT + second * scale
        yield Line(x, _TOP - 6, x, bottom, "#e3e3e3")
        yield Label(x, _TOP - 10, f"{second} s", 11)


def _legend() -> Iterator[Shape]:
    x = _WIDTH - 520.0
    for outcome, colour in _COLOURS.items():
        yield Box(x, 17, 10, 10, colour)
        yield Label(x + 14, 26, outcome, 11)
        x += 30 + _LETTER * len(outcome)


def _title(run: Played) -> str:
    how = "; ".join(f"{count} {outcome}" for outcome, count in sorted(run.outcomes.items()))
    return f"seed {run.schedule.seed}: {len(run.schedule.faults)} faults, {how}"


def _lane(fault: Fault) -> str:
    return "all" if fault.party == "anybody" else fault.party


def _drawn_s(fault: Fault, scale: float) -> float:
    """How many seconds its box takes, or its word where that is wider."""
    lasts = 0.0 if fault.kind in _SHORT else fault.lasts
    return max(lasts, (_LETTER * len(fault.kind) + 4) / scale)


def _fault(fault: Fault, y: float, scale: float) -> Iterator[Shape]:
    x = _LEFT + fault.at * scale
    lasts = 0.0 if fault.kind in _SHORT else fault.lasts
    tip = f"{fault.kind} for {fault.lasts} s"
    yield Box(x, y + 3, max(2.0, lasts * scale), _LANE - 6, _FAULT, tip=tip)
    yield Label(x + 3, y + 16, fault.kind, 10)


def _rows(spans: Sequence[tuple[float, float]]) -> list[int]:
    """On which row each span is drawn, so that none overlap."""
    free: list[float] = []
    rows = []
    for begin, end in spans:
        row = next((at for at, until in enumerate(free) if until <= begin), len(free))
        free[row : row + 1] = [end]
        rows.append(row)
    return rows


def _jobs(run: Played, rows: Sequence[int], top: float, scale: float) -> Iterator[Shape]:
    yield Label(_LEFT - 8, top + 9, "jobs", 12, anchor="end")
    for verdict, (begin, end), row in zip(run.verdicts, run.spans, rows, strict=True):
        job = verdict.evidence.job
        width = max(2.0, (end - begin) * scale)
        tip = f"{job.reply}: {job.pipeline}, {verdict.outcome}"
        yield Box(
            _LEFT + begin * scale, top + 9 * row, width, 7, _COLOURS[verdict.outcome], tip=tip
        )
