"""The backlog: which of the jobs that wait is begun next, and how many at once."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.gateway.jobs.queue import JobQueue
from fogmqtt.gateway.jobs.report import Report


class Nobody:
    """A client that does not care."""

    def progress(self, report: Report) -> None: ...

    def notice(self, job: str, text: str) -> None: ...

    def deliver(self, outcome: Outcome) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


def request(name: str, priority: int = 0) -> JobRequest:
    return JobRequest(name, "gray", Nobody(), path=Path(name), priority=priority)


def filled(slots: int, *requests: JobRequest) -> JobQueue:
    backlog = JobQueue(slots)
    for one in requests:
        backlog.add(one)
    return backlog


def taken(backlog: JobQueue) -> list[JobRequest]:
    """Everything that may be begun now."""
    return list(iter(backlog.take, None))


def test_of_one_priority_who_came_first_is_begun_first_and_as_many_as_there_are_slots() -> None:
    scans = [request(f"scan{number}") for number in range(5)]
    backlog = filled(2, *scans)
    assert taken(backlog) == scans[:2]
    assert backlog.waiting == 3
    backlog.ended(scans[1])
    assert taken(backlog) == [scans[2]]


def test_nobody_waits_for_a_slot_that_another_priority_holds() -> None:
    backlog = filled(2, *(request(f"scan{number}", -1) for number in range(3)))
    assert len(taken(backlog)) == 2
    frames = [request(f"frame{number}", 2) for number in range(3)]
    for frame in frames:
        backlog.add(frame)
    assert taken(backlog) == frames[:2]
    backlog.ended(frames[0])
    assert taken(backlog) == [frames[2]]
    assert backlog.waiting == 1


def test_the_highest_priority_with_a_free_slot_goes_first() -> None:
    low, middle, high = (request(str(priority), priority) for priority in (-1, 0, 2))
    assert taken(filled(1, middle, low, high)) == [high, middle, low]


def test_what_is_forgotten_is_not_begun_but_what_is_begun_keeps_its_slot() -> None:
    first, second = request("first"), request("second")
    backlog = filled(1, first, second)
    assert backlog.take() is first
    backlog.clear()
    backlog.add(second)
    assert backlog.take() is None
    backlog.ended(first)
    assert backlog.take() is second
    assert backlog.waiting == 0


steps = st.lists(st.tuples(st.sampled_from("aate"), st.integers(-1, 1)), max_size=60)


@settings(deadline=None)
@given(steps, st.integers(1, 3))
def test_each_is_begun_once_in_its_order_and_never_too_many(
    steps: list[tuple[str, int]], slots: int
) -> None:
    backlog = JobQueue(slots)
    waiting: dict[int, list[JobRequest]] = {-1: [], 0: [], 1: []}
    begun: dict[int, list[JobRequest]] = {-1: [], 0: [], 1: []}
    for what, priority in steps:
        if what == "a":
            waiting[priority].append(request("one", priority))
            backlog.add(waiting[priority][-1])
        elif what == "e" and begun[priority]:
            backlog.ended(begun[priority].pop())
        elif what == "t" and (one := backlog.take()) is not None:
            assert one is waiting[one.priority].pop(0)
            begun[one.priority].append(one)
        assert backlog.waiting == sum(map(len, waiting.values()))
        assert all(len(some) <= slots for some in begun.values())
    for one in taken(backlog):
        begun[one.priority].append(waiting[one.priority].pop(0))
    assert all(len(begun[one]) == slots or not waiting[one] for one in begun), "a slot is idle"
