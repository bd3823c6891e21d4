"""Blocking work beside the event loop: kept apart, cancelled, and never waited for in vain."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import pytest

from fogmqtt.errors import FogError, ImageError
from fogmqtt.gateway.background import race
from fogmqtt.gateway.jobs.memory_budget import COPIES, MemoryBudget
from fogmqtt.gateway.threads import IMAGE_THREADS, Threads, abandoned
from tests.gateway_rig import eventually, run

LARGE = 10**8


def test_work_gives_its_result_or_raises_in_the_coroutine() -> None:
    async def test() -> None:
        threads = Threads()
        assert await threads.tile(lambda: 1) == 1
        assert await threads.image(lambda: 2, LARGE) == 2
        assert await threads.apart(lambda: 3, "three") == 3
        for work in (threads.tile, lambda work: threads.apart(work, "x")):
            with pytest.raises(ZeroDivisionError):
                await work(lambda: 1 / 0)
        threads.close()

    run(test())


def test_light_tiles_are_done_in_the_event_loop_with_a_pass_of_it_after_each() -> None:
    async def test() -> None:
        threads, steps = Threads(), []
        loop = asyncio.get_running_loop()

        def work(number: int) -> str:
            steps.append(number)
            loop.call_soon(steps.append, "another callback")
            return threading.current_thread().name

        names = await asyncio.gather(
            *(threads.tile(partial(work, number), light=True) for number in range(3))
        )
        assert set(names) == {threading.current_thread().name}
        assert steps[:5] == [0, "another callback", 1, "another callback", 2]
        threads.close()

    run(test())


def test_large_images_wait_for_each_other_and_small_ones_for_none() -> None:
    release = threading.Event()

    async def test() -> None:
        threads = Threads()
        begun: list[int] = []

        def work(number: int) -> None:
            begun.append(number)
            release.wait(10)

        large = [
            asyncio.ensure_future(threads.image(lambda number=number: work(number), LARGE))  # type: ignore[misc]
            for number in range(IMAGE_THREADS + 1)
        ]
        await eventually(lambda: len(begun) == IMAGE_THREADS)
        assert await threads.image(lambda: "small", 1000) == "small"
        assert len(begun) == IMAGE_THREADS
        release.set()
        await asyncio.gather(*large)
        assert len(begun) == IMAGE_THREADS + 1

    try:
        run(test())
    finally:
        release.set()


def test_work_that_was_cancelled_is_named_until_it_returns() -> None:
    release = threading.Event()

    async def test() -> None:
        threads = Threads()
        task = asyncio.ensure_future(threads.apart(lambda: release.wait(10), "a hung disk"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        threads.close()

    run(test())
    assert "a hung disk" in abandoned()
    release.set()
    deadline = time.monotonic() + 10
    while "a hung disk" in abandoned():
        assert time.monotonic() < deadline


# Memory.


def test_an_image_waits_until_there_is_room_for_it() -> None:
    budget = MemoryBudget(limit_bytes=10 * COPIES)
    first, second = budget.reservation(), budget.reservation()
    first.take(7)
    waiting = threading.Thread(target=second.take, args=(7,))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    first.release()
    waiting.join(10)
    assert not waiting.is_alive()


def test_an_image_that_is_larger_than_the_budget_is_let_in_alone() -> None:
    MemoryBudget(limit_bytes=10).reservation().take(10**6)


def test_an_image_that_this_machine_cannot_hold_is_refused_with_how_much_it_has() -> None:
    with pytest.raises(ImageError, match=r"953674 MB, and a job holds 3 such images, over the \d+"):
        MemoryBudget().reservation().take(10**12)


def test_what_only_decoding_needs_is_returned_after_it() -> None:
    budget = MemoryBudget(limit_bytes=10 * COPIES)
    first, second = budget.reservation(), budget.reservation()
    first.take(4, work_bytes=20)
    assert budget.used == 24
    first.keep(4)
    assert budget.used == 4 * COPIES
    second.take(6)
    first.release()
    second.release()
    assert budget.used == 0


def test_a_job_that_ended_stops_waiting() -> None:
    budget = MemoryBudget(limit_bytes=10 * COPIES)
    budget.reservation().take(10)
    waiting, problems = budget.reservation(), list[FogError]()

    def take() -> None:
        try:
            waiting.take(10)
        except FogError as problem:
            problems.append(problem)

    thread = threading.Thread(target=take)
    thread.start()
    waiting.release()
    thread.join(10)
    assert "ended before its image was decoded" in str(problems[0])


# Two ways to one result.


async def after(seconds: float, value: str | Exception) -> str:
    await asyncio.sleep(seconds)
    if isinstance(value, Exception):
        raise value
    return value


def test_the_first_of_two_ways_wins_and_the_other_is_cancelled() -> None:
    async def test() -> None:
        won = await race("job", after(0, "tiles"), after(30, "whole"))
        assert (won.result, won.by_tiles) == ("tiles", True)
        won = await race("job", after(30, "tiles"), after(0, "whole"))
        assert (won.result, won.by_tiles) == ("whole", False)
        won = await race("job", None, after(0, "whole"))
        assert not won.by_tiles

    run(test())


def test_a_whole_that_fails_leaves_the_tiles_to_it() -> None:
    async def test() -> None:
        won = await race("job", after(0.05, "tiles"), after(0, MemoryError("no memory")))
        assert won.by_tiles
        with pytest.raises(MemoryError):
            await race("job", None, after(0, MemoryError("no memory")))

    run(test())


def test_tiles_that_fail_end_the_race() -> None:
    async def test() -> None:
        with pytest.raises(FogError):
            await race("job", after(0, FogError("poison")), after(30, "whole"))

    run(test())
