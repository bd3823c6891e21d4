"""Tiles of a stream in real worker processes: each goes to the worker that has its memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread

import numpy as np
import pytest

from fogmqtt.agent.service import Agent, AgentSettings, make_pool
from fogmqtt.images import codec
from fogmqtt.transport.base import Deliver, Will
from fogmqtt.wire.messages import Failure, Result
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.work import TileOutput, WorkFailed, WorkFinished
from tests.agent_rig import KnownConformance, Link, run_in_thread
from tests.misbehaving import workers_of
from tests.unit.test_tile_memories import task, whole


@pytest.fixture
def finished() -> SimpleQueue[WorkFinished[int]]:
    return SimpleQueue()


@pytest.fixture
def pool(finished: SimpleQueue[WorkFinished[int]]) -> Iterator[Pool[int]]:
    made = Pool[int](2, finished.put)
    yield made
    made.close()


def test_a_worker_that_is_named_does_the_tile(
    pool: Pool[int], finished: SimpleQueue[WorkFinished[int]]
) -> None:
    now = time.monotonic()
    for key, number in enumerate((1, 0, 1)):
        assert pool.is_idle(number)
        pool.start(key, task(0, "begin"), received_at=now, deadline=now + 60, number=number)
        assert finished.get(timeout=60).worker == number


def test_a_process_that_ends_loses_its_memories_and_says_so(
    pool: Pool[int], finished: SimpleQueue[WorkFinished[int]]
) -> None:
    now = time.monotonic()
    before = workers_of(os.getpid())

    def do(after: int, deed: str) -> TileOutput | WorkFailed:
        pool.start(0, task(after, deed), received_at=now, deadline=now + 60, number=0)
        outcome = finished.get(timeout=60).outcome
        assert isinstance(outcome, TileOutput | WorkFailed)
        return outcome

    assert isinstance(do(0, "begin"), TileOutput)
    for process in [one for one in workers_of(os.getpid()) if one not in before]:
        process.kill()
    crashed = do(1, "apply")
    assert isinstance(crashed, WorkFailed)
    lost = do(1, "apply")
    assert isinstance(lost, WorkFailed)
    assert lost.have == -1


def test_an_agent_with_two_workers_does_three_tiles_of_a_stream() -> None:
    links: list[Link] = []

    def connect(deliver: Deliver, will: Will) -> Link:
        links.append(Link(deliver, will))
        return links[0]

    settings = AgentSettings("eya", 2, ("mqtt://here",), checkin_s=60.0, isolates_all=True)
    rig = run_in_thread(Agent(settings, connect, make_pool, KnownConformance), links[0])
    try:
        for at in range(5):
            for tile in range(3):
                rig.tile(task(at, "apply" if at else "begin", "average", tile=tile))
        _until(lambda: len(links[0].of(Result)) + len(links[0].of(Failure)) >= 15)
        results, expected = links[0].of(Result), whole("average", 6)
        assert links[0].of(Failure) == []
        assert len(results) == 15
        for one in results:
            pixels = codec.decode(one.pixels, one.codec, one.shape, one.dtype)
            assert np.array_equal(pixels, expected[int(one.job.rpartition(".")[2])])
        used = {(one.tile, one.worker) for one in results}
        assert len(used) == 3
        assert {worker for _, worker in used} == {0, 1}
    finally:
        rig.agent.stop()
        _joined(rig.thread)


def _until(is_so: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _joined(thread: Thread) -> None:
    thread.join(30)
    assert not thread.is_alive()
