"""A pool of real worker processes: what operators do to them, and what that costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import psutil
import pytest

from fogmqtt.images import codec
from fogmqtt.images.spec import Image
from fogmqtt.wire.messages import Call, TileTask
from fogmqtt.workers.pool import CANCELLED_S, Pool
from fogmqtt.workers.throttle import Throttle
from fogmqtt.workers.work import Dropped, Failed, Finished, Pixels
from tests.agent_rig import task
from tests.fog import wait_for
from tests.misbehaving import install, workers_of

ROOT = Path(__file__).parents[2]

PLAIN: Image = np.full((20, 30), 12, np.uint8)
MARKED: Image = np.full((20, 30), 13, np.uint8)


class Crew:
    """A pool, and what it finished."""

    def __init__(self, size: int = 1, memory_mb: int = 0, pace: Throttle | None = None) -> None:
        self._before = children()
        self.done: SimpleQueue[Finished[int]] = SimpleQueue()
        self.pool = Pool[int](size, self.done.put, memory_mb=memory_mb, pace=pace)

    def workers(self) -> list[psutil.Process]:
        """Its processes."""
        return [worker for worker in children() if worker not in self._before]

    def give(self, key: int, work: TileTask, lease_s: float = 30.0) -> None:
        now = time.monotonic()
        self.pool.give(key, work, received_at=now, until=now + lease_s)

    def outcome(self, key: int) -> Pixels | Failed | Dropped:
        """What became of the tile, which must be the next that is finished."""
        finished = self.done.get(timeout=30)
        assert finished.key == key
        return finished.outcome

    def do(self, work: TileTask, lease_s: float = 30.0) -> Pixels | Failed | Dropped:
        self.give(0, work, lease_s)
        return self.outcome(0)

    def fails(self, how: str, lease_s: float = 30.0) -> Failed:
        outcome = self.do(told(how), lease_s)
        assert isinstance(outcome, Failed)
        return outcome

    def inverts(self) -> None:
        """It does an honest tile right."""
        assert np.array_equal(image_of(self.do(told("crash", PLAIN))), 255 - PLAIN)


Make = Callable[..., Crew]


@pytest.fixture(scope="module", autouse=True)
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers know the misbehaving operators: they look where their parent does."""
    package = install(tmp_path_factory.mktemp("plug-in")).split(os.pathsep)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", [package, *sys.path])
        yield


@pytest.fixture
def crew() -> Iterator[Make]:
    """Makes crews, whose processes are gone at the end."""
    made: list[Crew] = []

    def make(*arguments: Any, **named: Any) -> Crew:
        made.append(Crew(*arguments, **named))
        return made[-1]

    yield make
    for each in made:
        each.pool.close()
        assert each.workers() == []


@pytest.fixture(scope="module")
def one() -> Iterator[Crew]:
    """One worker, which the tests before may have left warm or dead."""
    made = Crew()
    yield made
    made.pool.close()
    assert children() == []


def children() -> list[psutil.Process]:
    return workers_of(os.getpid())


def told(how: str, image: Image = MARKED, **changes: Any) -> TileTask:
    stage = [Call("misbehave", {"how": how})]
    return task(7, stage=stage, pixels=memoryview(image.tobytes()), **changes)


def image_of(outcome: object) -> Image:
    assert isinstance(outcome, Pixels), outcome
    return codec.decode(outcome.data, outcome.codec, outcome.shape, outcome.dtype)


def test_a_process_starts_with_the_first_tile_and_stays(crew: Make) -> None:
    one = crew(2)
    assert one.workers() == []
    one.inverts()
    (first,) = one.workers()
    one.inverts()
    assert one.workers() == [first]


def test_tiles_of_any_size_come_back_right(one: Crew) -> None:
    for size in (1, 700, 30, 1600, 1):
        image = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
        image[0, 0] = 0
        work = told("raises", image, shape=image.shape, core=(0, 0, size, size))
        assert np.array_equal(image_of(one.do(work)), 255 - image)


@pytest.mark.parametrize("how", ["print", "backwards", "nap"])
def test_what_is_odd_but_right_is_a_result(how: str, one: Crew) -> None:
    assert np.array_equal(image_of(one.do(told(how))), 255 - MARKED)


def test_an_operator_that_gives_its_input_gives_a_copy(one: Crew) -> None:
    made = image_of(one.do(told("same")))
    one.inverts()
    assert np.array_equal(made, MARKED)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "ValueError: boom ?"),
        ("exit", "SystemExit: 3"),
        ("interrupt", "KeyboardInterrupt"),
        ("missing", "AttributeError: 'Misbehave' object has no attribute 'missing'"),
    ],
)
def test_whatever_is_raised_is_a_failure_and_the_next_tile_is_done(
    how: str, reason: str, one: Crew
) -> None:
    failed = one.fails(how)
    assert failed.reason == reason
    assert "in process" in failed.traceback
    one.inverts()


@pytest.mark.parametrize(
    ("how", "gave"),
    [
        ("nothing", "a NoneType"),
        ("list", "a list"),
        ("larger", "30x40 gray uint8"),
        ("double", "30x20 gray float64"),
        ("deeper", "an array of (1, 2, 20, 30)"),
    ],
)
@pytest.mark.parametrize("after", [[], [Call("invert")]])
def test_what_is_no_image_of_the_tile_names_the_operator_and_what_it_gave(
    how: str, gave: str, after: list[Call], one: Crew
) -> None:
    stage = [Call("misbehave", {"how": how}), *after]
    outcome = one.do(task(stage=stage, pixels=memoryview(MARKED.tobytes())))
    assert isinstance(outcome, Failed)
    assert outcome.reason == f"misbehave gave {gave}, not 30x20 gray uint8"


@pytest.mark.parametrize(
    ("how", "reason", "where"),
    [
        ("crash", "was ended by signal 11 (SIGSEGV)", "in crash"),
        ("kill", "was ended by signal 9 (SIGKILL)", ""),
        ("really_exit", "ended with exit code 7", ""),
        ("silence", "", ""),
        ("babble", "", ""),
    ],
)
def test_a_process_that_dies_costs_its_tile_only(
    how: str, reason: str, where: str, one: Crew
) -> None:
    failed = one.fails(how)
    assert failed.reason.startswith(f"the worker process {reason}")
    assert failed.reason.endswith("at tile 7 in operators misbehave")
    assert where in failed.traceback
    one.inverts()


@pytest.mark.parametrize("how", ["hang", "native_hang"])
def test_a_tile_that_hangs_past_its_lease_fails_with_where_it_hangs(how: str, one: Crew) -> None:
    one.inverts()
    failed = one.fails(how, lease_s=0.5)
    assert failed.reason == (
        "tile 7 in operators misbehave did not return within its lease of 0.5 s; "
        "the worker was ended"
    )
    assert f"in {how}" in failed.traceback
    one.inverts()


def test_even_a_stopped_process_is_ended(one: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fogmqtt.workers.child._DUMP_S", 0.1)
    one.inverts()
    one.workers()[0].suspend()
    assert "did not return" in one.fails("print", lease_s=0.2).reason
    one.inverts()


@pytest.mark.parametrize("how", ["eat", "nibble"])
def test_an_operator_that_eats_memory_fails_with_its_traceback(how: str, crew: Make) -> None:
    one = crew(memory_mb=128)
    failed = one.fails(how)
    assert "MemoryError" in failed.reason
    assert "misbehaving_operators.py" in failed.traceback
    one.inverts()


def test_memory_that_a_tile_left_behind_is_not_charged_to_the_next(
    crew: Make,
) -> None:
    one = crew(memory_mb=256)
    for _ in range(2):
        assert np.array_equal(image_of(one.do(told("leak"))), 255 - MARKED)
    one.inverts()


def test_a_worker_that_hangs_does_not_keep_another_from_its_tiles(
    crew: Make,
) -> None:
    one = crew(2)
    one.give(1, told("hang"))
    for _ in range(5):
        one.inverts()
    one.pool.cancel(1)
    assert one.outcome(1) == Dropped()


def test_a_cancelled_tile_stops_working_after_a_second(one: Crew) -> None:
    one.inverts()
    (first,) = one.workers()
    began = time.monotonic()
    one.give(1, told("hang"))
    one.pool.cancel(1)
    assert one.outcome(1) == Dropped()
    assert CANCELLED_S <= time.monotonic() - began < 10
    assert not first.is_running()
    one.inverts()


def test_a_cancelled_tile_that_is_nearly_done_keeps_its_worker(one: Crew) -> None:
    one.inverts()
    before = one.workers()
    one.give(1, told("nap"))
    one.pool.cancel(1)
    assert isinstance(one.outcome(1), Pixels)
    assert one.workers() == before


def test_a_tile_that_is_wanted_again_goes_on(one: Crew) -> None:
    one.give(1, told("hang"))
    one.pool.cancel(1)
    one.pool.renew(1, time.monotonic() + CANCELLED_S + 0.5)
    outcome = one.outcome(1)
    assert isinstance(outcome, Failed)
    assert "did not return" in outcome.reason


def test_a_warm_worker_is_there_before_its_first_tile(crew: Make) -> None:
    one = crew(size=2)
    assert one.workers() == []
    one.pool.warm()
    deadline = time.monotonic() + 10
    while len(warm := one.workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    one.pool.warm()
    one.inverts()
    assert one.workers() == warm
    assert len(warm) == 2


def test_only_the_first_tile_of_a_process_tells_of_its_start(crew: Make) -> None:
    one = crew()
    one.give(1, told("crash", PLAIN))
    first = one.done.get(timeout=30)
    one.give(2, told("crash", PLAIN))
    second = one.done.get(timeout=30)
    assert first.start_s > 0.05  # Python itself takes as long
    assert second.start_s == 0


def test_a_slower_device_can_be_emulated(crew: Make) -> None:
    one = crew(pace=Throttle([20 * 30 / 0.5]))
    one.give(1, told("raises", PLAIN))
    finished = one.done.get(timeout=30)
    assert isinstance(finished.outcome, Pixels)
    assert 0.5 <= finished.compute_s < 5


def test_an_emulated_device_may_slow_down_in_the_middle_of_a_tile(crew: Make) -> None:
    pace = Throttle([20 * 30 / 0.2, 20 * 30 / 2.0])
    one = crew(pace=pace)
    one.give(1, told("raises", PLAIN))
    pace.change(time.monotonic() + 0.1)
    assert 1.0 <= one.done.get(timeout=30).compute_s < 5


def test_a_cancel_wakes_an_emulated_device(crew: Make) -> None:
    one = crew(pace=Throttle([20 * 30 / 60]))
    one.give(1, told("raises", PLAIN))
    one.pool.cancel(1)
    assert one.outcome(1) == Dropped()


def test_closing_ends_what_hangs(crew: Make) -> None:
    one = crew(2)
    one.give(1, told("hang"))
    wait_for(lambda: len(one.workers()) == 1, within=10, what="a worker")
    one.pool.close()
    assert one.workers() == []


PARENT = """
import sys, time
from queue import SimpleQueue
from fogmqtt.wire.messages import *
from fogmqtt.workers.pool import Pool
done = SimpleQueue()
pool = Pool(2, done.put)
for how in ("print", "hang"):
    work = TileTask(job="j", tile=0, attempt=1, gateway="g", shape=(1, 1, 1), dtype="uint8",
                    stage=[Call("misbehave", {"how": how})], core=(0, 0, 1, 1), lease_s=99.0,
                    pixels=memoryview(bytes([13])))
    pool.give(how, work, received_at=time.monotonic(), until=time.monotonic() + 99)
done.get()
print("ready", flush=True)
time.sleep(99)
"""


def test_no_worker_outlives_its_parent_whatever_kills_it(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": install(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=env, stdout=subprocess.PIPE, cwd=ROOT
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) == 2
        for number in (signal.SIGINT, signal.SIGTERM):
            for worker in workers:
                worker.send_signal(number)
        assert psutil.wait_procs(workers, 0.3)[0] == []
        parent.kill()
        gone, alive = psutil.wait_procs(workers, 10)
    assert (len(gone), alive) == (2, [])
