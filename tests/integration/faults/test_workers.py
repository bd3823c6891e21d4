"""A pool of real worker processes, with operators that misbehave."""

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

import cv2
import numpy as np
import psutil
import pytest

from fogmqtt.images import codec
from fogmqtt.images.spec import Image
from fogmqtt.wire.messages import Call, TileTask
from fogmqtt.workers.pool import CANCELLED_S, Pool
from fogmqtt.workers.throttle import Throttle
from fogmqtt.workers.work import TileOutput, WorkCancelled, WorkFailed, WorkFinished
from tests.agent_rig import task
from tests.fog import wait_for
from tests.misbehaving import install, workers_of

ROOT = Path(__file__).parents[3]

PLAIN: Image = np.full((20, 30), 12, np.uint8)
MARKED: Image = np.full((20, 30), 13, np.uint8)


class PoolRig:
    """A pool and the tiles that it finished."""

    def __init__(self, size: int = 1, memory_mb: int = 0, throttle: Throttle | None = None) -> None:
        self._before = children()
        self.done: SimpleQueue[WorkFinished[int]] = SimpleQueue()
        self.pool = Pool[int](size, self.done.put, memory_mb=memory_mb, throttle=throttle)

    def workers(self) -> list[psutil.Process]:
        """The processes of this pool."""
        return [worker for worker in children() if worker not in self._before]

    def start(self, key: int, work: TileTask, lease_s: float = 30.0) -> None:
        now = time.monotonic()
        self.pool.start(key, work, received_at=now, deadline=now + lease_s)

    def outcome(self, key: int) -> TileOutput | WorkFailed | WorkCancelled:
        """Wait for the outcome of the tile, which must be the next that finishes."""
        finished = self.done.get(timeout=30)
        assert finished.key == key
        return finished.outcome

    def do(self, work: TileTask, lease_s: float = 30.0) -> TileOutput | WorkFailed | WorkCancelled:
        self.start(0, work, lease_s)
        return self.outcome(0)

    def fails(self, how: str, lease_s: float = 30.0) -> WorkFailed:
        outcome = self.do(misbehaving_task(how), lease_s)
        assert isinstance(outcome, WorkFailed)
        return outcome

    def succeeds(self) -> None:
        """Run a tile whose operator does not misbehave, and check the result."""
        assert np.array_equal(image_of(self.do(misbehaving_task("crash", PLAIN))), 255 - PLAIN)


MakeRig = Callable[..., PoolRig]


@pytest.fixture(scope="module", autouse=True)
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let workers import the misbehaving operators: they inherit the path of their parent."""
    package = install(tmp_path_factory.mktemp("plug-in")).split(os.pathsep)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", [package, *sys.path])
        yield


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    """Makes pools, and checks that their processes are gone at the end."""
    rigs: list[PoolRig] = []

    def make(*arguments: Any, **named: Any) -> PoolRig:
        rigs.append(PoolRig(*arguments, **named))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.pool.close()
        assert rig.workers() == []


@pytest.fixture(scope="module")
def rig() -> Iterator[PoolRig]:
    """A pool of one worker for several tests. An earlier test may have ended its process."""
    rig = PoolRig()
    yield rig
    rig.pool.close()
    assert children() == []


def children() -> list[psutil.Process]:
    return workers_of(os.getpid())


def misbehaving_task(how: str, image: Image = MARKED, **changes: Any) -> TileTask:
    stage = [Call("misbehave", {"how": how})]
    return task(7, stage=stage, pixels=memoryview(image.tobytes()), **changes)


def image_of(outcome: object) -> Image:
    assert isinstance(outcome, TileOutput), outcome
    return codec.decode(outcome.data, outcome.codec, outcome.shape, outcome.dtype)


def test_a_process_starts_with_the_first_tile_and_stays(make_rig: MakeRig) -> None:
    rig = make_rig(2)
    assert rig.workers() == []
    rig.succeeds()
    (first,) = rig.workers()
    rig.succeeds()
    assert rig.workers() == [first]


def test_tiles_of_any_size_are_correct(rig: PoolRig) -> None:
    for size in (1, 700, 30, 1600, 1):
        image = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
        image[0, 0] = 0
        work = misbehaving_task("raises", image, shape=image.shape, core=(0, 0, size, size))
        assert np.array_equal(image_of(rig.do(work)), 255 - image)


@pytest.mark.parametrize("how", ["print", "backwards", "nap"])
def test_unusual_but_correct_behaviour_gives_a_result(how: str, rig: PoolRig) -> None:
    assert np.array_equal(image_of(rig.do(misbehaving_task(how))), 255 - MARKED)


def test_the_result_of_an_operator_that_returns_its_input_is_a_copy(rig: PoolRig) -> None:
    rigs = image_of(rig.do(misbehaving_task("same")))
    rig.succeeds()
    assert np.array_equal(rigs, MARKED)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "ValueError: boom ?"),
        ("exit", "SystemExit: 3"),
        ("interrupt", "KeyboardInterrupt"),
        ("missing", "AttributeError: 'Misbehave' object has no attribute 'missing'"),
    ],
)
def test_any_exception_is_a_failure_and_the_next_tile_succeeds(
    how: str, reason: str, rig: PoolRig
) -> None:
    failed = rig.fails(how)
    assert failed.reason == reason
    assert "in process" in failed.traceback
    rig.succeeds()


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
def test_the_failure_of_a_wrong_output_names_the_operator_and_the_output(
    how: str, gave: str, after: list[Call], rig: PoolRig
) -> None:
    stage = [Call("misbehave", {"how": how}), *after]
    outcome = rig.do(task(stage=stage, pixels=memoryview(MARKED.tobytes())))
    assert isinstance(outcome, WorkFailed)
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
def test_a_process_that_crashes_fails_its_tile_only(
    how: str, reason: str, where: str, rig: PoolRig
) -> None:
    failed = rig.fails(how)
    assert failed.reason.startswith(f"the worker process {reason}")
    assert failed.reason.endswith("at tile 7 in operators misbehave")
    assert where in failed.traceback
    rig.succeeds()


def test_a_worker_starts_while_a_thread_of_its_parent_imports_opencv(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV puts its own folder, which has a module `typing`, into sys.path for a moment."""
    monkeypatch.setattr("sys.path", [str(Path(cv2.__file__).parent), *sys.path])
    make_rig().succeeds()


@pytest.mark.parametrize("how", ["hang", "native_hang"])
def test_a_tile_that_outlasts_its_lease_fails_with_a_traceback(how: str, rig: PoolRig) -> None:
    rig.succeeds()
    failed = rig.fails(how, lease_s=0.5)
    assert failed.reason == (
        "tile 7 in operators misbehave did not return within its lease of 0.5 s; "
        "the worker was ended"
    )
    assert f"in {how}" in failed.traceback
    rig.succeeds()


def test_a_stopped_process_is_ended(rig: PoolRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fogmqtt.workers.child._DUMP_S", 0.1)
    rig.succeeds()
    rig.workers()[0].suspend()
    assert "did not return" in rig.fails("print", lease_s=0.2).reason
    rig.succeeds()


@pytest.mark.parametrize("how", ["eat", "nibble", "crumble"])
def test_an_operator_over_the_memory_limit_fails_with_its_traceback(
    how: str, make_rig: MakeRig
) -> None:
    rig = make_rig(memory_mb=128)
    failed = rig.fails(how)
    assert "MemoryError" in failed.reason
    assert "misbehaving_operators.py" in failed.traceback
    rig.succeeds()


def test_a_tile_that_failed_as_expected_leaves_the_memory_limit_in_force(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(memory_mb=128)
    rig.succeeds()
    before = rig.workers()
    assert "misbehave gave" in rig.fails("larger").reason
    assert rig.workers() == before
    assert "MemoryError" in rig.fails("eat").reason


def test_memory_that_a_tile_kept_does_not_count_for_the_next_one(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(memory_mb=256)
    for _ in range(2):
        assert np.array_equal(image_of(rig.do(misbehaving_task("leak"))), 255 - MARKED)
    rig.succeeds()


def test_a_hanging_worker_does_not_block_another_worker(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(2)
    rig.start(1, misbehaving_task("hang"))
    for _ in range(5):
        rig.succeeds()
    rig.pool.cancel(1)
    assert rig.outcome(1) == WorkCancelled()


def test_a_cancelled_tile_is_ended_after_a_second(rig: PoolRig) -> None:
    rig.succeeds()
    (first,) = rig.workers()
    began = time.monotonic()
    rig.start(1, misbehaving_task("hang"))
    rig.pool.cancel(1)
    assert rig.outcome(1) == WorkCancelled()
    assert CANCELLED_S <= time.monotonic() - began < 10
    assert not first.is_running()
    rig.succeeds()


def test_a_cancelled_tile_that_is_done_within_a_second_keeps_its_worker(rig: PoolRig) -> None:
    rig.succeeds()
    before = rig.workers()
    rig.start(1, misbehaving_task("nap"))
    rig.pool.cancel(1)
    assert isinstance(rig.outcome(1), TileOutput)
    assert rig.workers() == before


def test_a_renewed_tile_goes_on(rig: PoolRig) -> None:
    rig.start(1, misbehaving_task("hang"))
    rig.pool.cancel(1)
    rig.pool.renew(1, time.monotonic() + CANCELLED_S + 0.5)
    outcome = rig.outcome(1)
    assert isinstance(outcome, WorkFailed)
    assert "did not return" in outcome.reason


def test_a_warm_worker_runs_before_its_first_tile(make_rig: MakeRig) -> None:
    rig = make_rig(size=2)
    assert rig.workers() == []
    rig.pool.warm()
    deadline = time.monotonic() + 10
    while len(warm := rig.workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    rig.pool.warm()
    rig.succeeds()
    assert rig.workers() == warm
    assert len(warm) == 2


def test_only_the_first_tile_of_a_process_reports_the_start_time(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.start(1, misbehaving_task("crash", PLAIN))
    first = rig.done.get(timeout=30)
    rig.start(2, misbehaving_task("crash", PLAIN))
    second = rig.done.get(timeout=30)
    assert first.start_s > 0.01  # no processor starts Python and numpy sooner
    assert second.start_s == 0


def test_a_slower_device_can_be_emulated(make_rig: MakeRig) -> None:
    rig = make_rig(throttle=Throttle([20 * 30 / 0.5]))
    rig.start(1, misbehaving_task("raises", PLAIN))
    finished = rig.done.get(timeout=30)
    assert isinstance(finished.outcome, TileOutput)
    assert 0.5 <= finished.compute_s < 5


def test_an_emulated_device_may_slow_down_during_a_tile(make_rig: MakeRig) -> None:
    throttle = Throttle([20 * 30 / 0.2, 20 * 30 / 2.0])
    rig = make_rig(throttle=throttle)
    rig.start(1, misbehaving_task("raises", PLAIN))
    throttle.next_speed(time.monotonic() + 0.1)
    assert 1.0 <= rig.done.get(timeout=30).compute_s < 5


def test_a_cancel_ends_the_wait_of_an_emulated_device(make_rig: MakeRig) -> None:
    rig = make_rig(throttle=Throttle([20 * 30 / 60]))
    rig.start(1, misbehaving_task("raises", PLAIN))
    rig.pool.cancel(1)
    assert rig.outcome(1) == WorkCancelled()


def test_closing_ends_hanging_workers(make_rig: MakeRig) -> None:
    rig = make_rig(2)
    rig.start(1, misbehaving_task("hang"))
    wait_for(lambda: len(rig.workers()) == 1, within=10, what="a worker")
    rig.pool.close()
    assert rig.workers() == []


PARENT = """
import sys, time
from queue import SimpleQueue
from fogmqtt.wire.messages import *
from fogmqtt.workers.pool import Pool
done = SimpleQueue()
pool = Pool(2, done.put)
def start(key, how):
    work = TileTask(job="j", tile=0, attempt=1, gateway="g", shape=(1, 1, 1), dtype="uint8",
                    stage=[Call("misbehave", {"how": how})], core=(0, 0, 1, 1), lease_s=99.0,
                    pixels=memoryview(bytes([13])))
    pool.start(key, work, received_at=time.monotonic(), deadline=time.monotonic() + 99)
for key in (1, 2):
    start(key, "print")
for key in (1, 2):
    done.get()  # each of the two processes did a tile, so both have set up their signals
start(3, "hang")
print("ready", flush=True)
time.sleep(99)
"""


def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
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
