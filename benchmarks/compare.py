"""The peers on the emulated fleets: workers that take the time of devices of the same speeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from emulated import Case
from system import PEERS, Figures, Started, Task, missing

#: Each worker of a peer takes half a second of a core or more to start.
MOST_WORKERS = 16
#: Strips of 24 MP; those that suit a peer best are used. `strips` has one for each worker.
TILES = (24, 48, 96)
USUAL_TILES = 96
COLUMNS = ("strips", *PEERS)
#: These repeat nothing when a worker is killed: the job does not end.
_FRAGILE = ("strips", "imagezmq", "celery")


@dataclass(frozen=True)
class Column:
    """A peer's rounds: the medians of makespan / ideal, and of the CPU-seconds of all processes."""

    ratio: float
    cpu_s: float


def compare(case: Case, rounds: int) -> dict[str, Column]:
    """Measure the peers that are installed and can run the case."""
    columns = {}
    for name in COLUMNS:
        if len(case.speeds) > MOST_WORKERS or missing(_system(name)):
            continue
        if case.fault == "killed" and name in _FRAGILE:
            continue
        columns[name] = _column(case, _rounds(case, name, rounds))
    return columns


def _rounds(case: Case, name: str, rounds: int) -> list[Figures]:
    """Return the rounds with the number of strips that suits the peer best."""
    if case.fault == "killed":  # a new fleet for each round, so only one number is tried
        return [_on_fleet(case, name, (USUAL_TILES,), 1)[0] for _ in range(rounds)]
    return _on_fleet(case, name, (len(case.speeds),) if name == "strips" else TILES, rounds)


def _on_fleet(case: Case, name: str, tiles: tuple[int, ...], rounds: int) -> list[Figures]:
    tasks = [Task("invert", case.megapixels, each) for each in tiles]
    with _started(case, name) as system:
        system.warm(tasks[0])
        best = (
            tasks[0] if len(tasks) == 1 else min(tasks, key=lambda task: system.job(task).seconds)
        )
        return [system.job(_faulty(case, best)) for _ in range(rounds)]


def _faulty(case: Case, task: Task) -> Task:
    if case.fault == "drops":
        return replace(task, drop_after_s=case.fault_s)
    if case.fault == "killed":
        return replace(task, kill_after_s=case.fault_s)
    return task


@contextmanager
def _started(case: Case, name: str) -> Iterator[Started]:
    system = Started(_system(name), workers=len(case.speeds), speeds=case.speeds)
    try:
        yield system
    finally:
        system.close()


def _system(name: str) -> str:
    return "imagezmq" if name == "strips" else name


def _column(case: Case, figures: list[Figures]) -> Column:
    seconds = statistics.median(each.seconds for each in figures)
    return Column(seconds / case.ideal_s, statistics.median(each.cpu_s for each in figures))
