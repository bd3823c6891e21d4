"""The queue of jobs: which of those that wait begins next, and how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.gateway.jobs.queue import JobQueue


class Jobs:
    """Jobs that wait for their turn, and end when the test says so."""

    def __init__(self, places: int) -> None:
        self.queue = JobQueue(places)
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def add(self, name: str, priority: int = 0) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.get_running_loop().create_task(self._run(name, priority))
        await settle()

    async def end(self, name: str) -> None:
        self.end_soon(name)
        await settle()

    def end_soon(self, name: str) -> None:
        """End a job before any other coroutine runs."""
        self._ends[name].set()

    async def cancel(self, name: str) -> None:
        self.cancel_soon(name)
        await settle()

    def cancel_soon(self, name: str) -> None:
        """Cancel a job before any other coroutine runs."""
        self._tasks[name].cancel()

    async def _run(self, name: str, priority: int) -> None:
        async with self.queue.turn(priority):
            self.begun.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    """Let every coroutine go as far as it can."""
    for _ in range(8):
        await asyncio.sleep(0)


def in_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    async def run() -> None:
        await test()

    def wrapped() -> None:
        asyncio.run(run())

    wrapped.__name__ = test.__name__  # type: ignore[attr-defined]
    return wrapped


@in_a_loop
async def test_of_one_priority_the_oldest_begin_as_many_as_there_are_places() -> None:
    jobs = Jobs(2)
    for number in range(5):
        await jobs.add(f"scan{number}")
    assert jobs.begun == ["scan0", "scan1"]
    assert jobs.queue.waiting == 3
    await jobs.end("scan1")
    assert jobs.begun == ["scan0", "scan1", "scan2"]


@in_a_loop
async def test_no_job_waits_for_a_place_of_another_priority() -> None:
    jobs = Jobs(2)
    for number in range(3):
        await jobs.add(f"scan{number}", -1)
    for number in range(3):
        await jobs.add(f"frame{number}", 2)
    assert jobs.begun == ["scan0", "scan1", "frame0", "frame1"]
    await jobs.end("frame0")
    assert jobs.begun[4:] == ["frame2"]
    assert jobs.queue.waiting == 1


@in_a_loop
async def test_after_a_hold_the_highest_priority_begins_first() -> None:
    jobs = Jobs(1)
    jobs.queue.hold(True)
    for name, priority in (("middle", 0), ("low", -1), ("high", 2)):
        await jobs.add(name, priority)
    assert jobs.begun == []
    jobs.queue.hold(False)
    await settle()
    assert jobs.begun == ["high", "middle", "low"]


@in_a_loop
async def test_a_job_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    jobs = Jobs(1)
    for name in ("first", "second", "third"):
        await jobs.add(name)
    await jobs.cancel("second")
    assert jobs.queue.waiting == 1
    await jobs.end("first")
    assert jobs.begun == ["first", "third"]


@in_a_loop
async def test_a_job_that_is_cancelled_at_work_gives_its_place_to_the_next() -> None:
    jobs = Jobs(1)
    await jobs.add("first")
    await jobs.add("second")
    await jobs.cancel("first")
    assert jobs.begun == ["first", "second"]


@in_a_loop
async def test_a_job_that_is_cancelled_in_the_moment_of_its_turn_gives_the_place_back() -> None:
    queue, first, begun = JobQueue(1), asyncio.Event(), list[str]()
    tasks: dict[str, asyncio.Task[None]] = {}

    async def hold() -> None:
        async with queue.turn(0):
            await first.wait()
        tasks["second"].cancel()  # it has its turn now, and has not run yet

    async def run(name: str) -> None:
        async with queue.turn(0):
            begun.append(name)

    loop = asyncio.get_running_loop()
    holding = loop.create_task(hold())
    for name in ("second", "third"):
        await settle()
        tasks[name] = loop.create_task(run(name))
    await settle()
    first.set()
    await holding
    await tasks["third"]
    assert begun == ["third"]


@in_a_loop
async def test_a_place_that_is_free_in_the_moment_of_a_cancellation_is_given_once() -> None:
    jobs = Jobs(1)
    for name in ("first", "second", "third", "fourth"):
        await jobs.add(name)
    jobs.end_soon("first")
    jobs.cancel_soon("second")  # it has not run since, so it is in the queue as the place comes
    await settle()
    assert jobs.begun == ["first", "third"]


steps = st.lists(st.tuples(st.sampled_from("aaec"), st.integers(-1, 1)), max_size=40)


@settings(deadline=None, max_examples=60)
@given(steps, st.integers(1, 3))
def test_each_begins_once_in_its_order_and_never_too_many(
    steps: list[tuple[str, int]], places: int
) -> None:
    async def play() -> None:
        jobs = Jobs(places)
        waiting: dict[int, list[str]] = {-1: [], 0: [], 1: []}
        running: dict[int, list[str]] = {-1: [], 0: [], 1: []}
        for number, (what, priority) in enumerate(steps):
            if what == "a":
                waiting[priority].append(f"job{number}")
                await jobs.add(f"job{number}", priority)
            elif what == "e" and running[priority]:
                await jobs.end(running[priority].pop())
            elif what == "c" and waiting[priority]:
                await jobs.cancel(waiting[priority].pop())
            while waiting[priority] and len(running[priority]) < places:
                running[priority].append(waiting[priority].pop(0))
            assert sorted(jobs.begun) == sorted(set(jobs.begun))
            assert {one for some in running.values() for one in some} <= set(jobs.begun)
            assert jobs.queue.waiting == sum(map(len, waiting.values()))

    asyncio.run(play())


def test_the_jobs_of_one_user_do_not_hold_up_the_job_of_another() -> None:
    async def test() -> None:
        queue, done = JobQueue(1), []

        async def job(user: str, number: int) -> None:
            async with queue.turn(0, user):
                done.append(f"{user}{number}")
                await settle()

        jobs = [asyncio.ensure_future(job("many", number)) for number in range(1000)]
        await settle()
        one = [asyncio.ensure_future(job("few", number)) for number in range(2)]
        await asyncio.gather(*jobs, *one)
        assert max(map(done.index, ("few0", "few1"))) < 10
        assert [name for name in done if name.startswith("many")] == [
            f"many{number}" for number in range(1000)
        ]

    asyncio.run(test())
