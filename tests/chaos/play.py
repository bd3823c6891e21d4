"""A schedule, carried out: harm and jobs at their times, then quiet, then the evidence."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fogmqtt.images.spec import Image
from tests.chaos.customer import Customer, Heard, expected_of, ledger_of
from tests.chaos.faults import harm
from tests.chaos.schedule import FULL, Schedule
from tests.chaos.verdict import Evidence, Verdict, is_over, judge
from tests.chaos.world import World, world_of
from tests.processes import Program, read, same

#: All harm is over: what is accepted must end within this many seconds. A tile that hangs on every
#: device fails its job after `max_failures` leases, with quarantines in between. A lease is 20 s at
#: first. It doubles when it expires, to 80 s on a machine with other work.
QUIET_S = 480.0
_LOOK_S = 1.0

Booked = dict[str, tuple[str, bool, str]]


@dataclass(frozen=True)
class Played:
    """What happened."""

    schedule: Schedule
    verdicts: tuple[Verdict, ...]
    #: What a run must not show beside wrong jobs: tracebacks, parties that left, notes left over.
    problems: tuple[str, ...]
    seconds: float
    retries: int
    duplicates: int
    #: Packets that proxies harmed, repeated or put out of order.
    touched: int
    #: (submitted, ended) of each job in seconds since the start, for the picture.
    spans: tuple[tuple[float, float], ...]
    #: Faults of the disk that did nothing, since we may not mount a small one here.
    left_out: int

    @property
    def is_good(self) -> bool:
        return not self.problems and not any(verdict.problems for verdict in self.verdicts)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(verdict.outcome for verdict in self.verdicts)


def play(
    schedule: Schedule,
    folder: Path,
    tell: Callable[[str], None] = print,
    quiet_s: float = QUIET_S,
) -> Played:
    """Carry out a schedule with real processes in an empty folder."""
    with (
        world_of(schedule, folder) as world,
        Customer(world.fog.broker.url, folder).listening() as customer,
    ):
        began = time.monotonic()
        _carry_out(schedule, world, customer, began, tell)
        tell(f"{time.monotonic() - began:6.2f} all harm is over")
        world.mend()
        _wait_for_quiet(world, customer, quiet_s)
        verdicts = tuple(judge(_evidence(one, world), schedule) for one in customer.heard.values())
        spans = tuple(_span(one, began) for one in customer.heard.values())
        return Played(
            schedule=schedule,
            verdicts=verdicts,
            problems=tuple(_found(world)),
            seconds=time.monotonic() - began,
            retries=customer.retries,
            duplicates=customer.duplicates,
            touched=sum(link.touched for link in world.links.values()),
            spans=spans,
            left_out=0 if world.own_disk else sum(one.kind == FULL for one in schedule.faults),
        )


def _carry_out(
    schedule: Schedule,
    world: World,
    customer: Customer,
    began: float,
    tell: Callable[[str], None],
) -> None:
    for at, what, act in _agenda(schedule, world, customer):
        while (left_s := began + at - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
            world.restart_leavers()
            customer.insist()
        tell(f"{time.monotonic() - began:6.2f} {what}")
        act()


def _agenda(
    schedule: Schedule, world: World, customer: Customer
) -> list[tuple[float, str, Callable[[], None]]]:
    agenda: list[tuple[float, str, Callable[[], None]]] = []
    for job in schedule.jobs:
        what = f"submit {job.reply}: {job.pipeline} of {job.width}x{job.height}"
        agenda.append((job.at, what, lambda job=job: customer.submit(job)))  # type: ignore[misc]
    for fault in schedule.faults:
        done = harm(fault, world, customer)
        agenda.append((fault.at, f"{fault.kind} {fault.party} for {fault.lasts} s", done.begin))
        agenda.append((fault.until, f"end of {fault.kind} {fault.party}", done.end))
    return sorted(agenda, key=lambda one: one[0])


def _wait_for_quiet(world: World, customer: Customer, quiet_s: float) -> None:
    """Until everything is over, and the spool is empty; or patience is."""
    deadline = time.monotonic() + quiet_s
    while time.monotonic() < deadline:
        booked = ledger_of(world.spool)
        over = all(_is_over(one, booked) for one in customer.heard.values())
        if over and not list(world.spool.glob("*.json")):
            return
        time.sleep(0.2)
        world.restart_leavers()
        customer.insist()


def _is_over(one: Heard, booked: Booked) -> bool:
    return is_over(_known(one, booked))


def _known(one: Heard, booked: Booked) -> Evidence:
    mine = {
        job: (ended, error)
        for job, (reply, ended, error) in booked.items()
        if reply == one.job.reply
    }
    return Evidence(one.job, len(one.published), tuple(one.said), mine, (), {})


def _evidence(one: Heard, world: World) -> Evidence:
    """All that is known of a submission in the end."""
    known = _known(one, ledger_of(world.spool))
    expected = expected_of(one.job) if not one.job.planted else np.zeros((0, 0), np.uint8)
    prefix = f"{one.job.reply}-j"
    files = {
        path.stem.removeprefix(f"{one.job.reply}-"): same(read(path), expected)
        for path in (world.folder / "outbox").glob(f"{prefix}*.png")
    }
    images = tuple(_is_exact(data, expected) for data in one.images)
    first = one.published[0] if one.published else one.ended_at
    seconds = max(0.0, one.ended_at - first)
    return Evidence(one.job, known.published, known.said, known.booked, images, files, seconds)


def _is_exact(data: bytes, expected: Image) -> bool:
    got = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return got is not None and same(got, expected)


def _span(one: Heard, began: float) -> tuple[float, float]:
    first = one.published[0] if one.published else began
    return first - began, max(first, one.ended_at) - began


def _found(world: World) -> list[str]:
    notes = world.spool.glob("*.json")
    problems = [*world.left, *(f"left in the spool: {note.read_text()}" for note in notes)]
    for program in world.fog.programs:
        at = program.said.find("Traceback")
        if at >= 0 and not _lost_its_parent(program):
            problems.append(f"{program.log.name}: {program.said[max(0, at - 500) : at + 3000]}")
    return problems


def _lost_its_parent(program: Program) -> bool:
    """Whether the only traceback is of a child whose parent we killed: it could tell nobody."""
    killed = program.process.returncode == -signal.SIGKILL
    return killed and "BrokenPipeError" in program.said.split("Traceback", 1)[1]
