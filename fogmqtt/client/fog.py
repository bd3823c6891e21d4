"""`Fog`: what a program processes its images with. `fogmqtt.connect` makes one.

with fogmqtt.connect("config.yaml") as fog:
    edges = fog.run("photo.jpg", "gray | canny low=50 high=150")
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, Unpack

from fogmqtt.client.fleet import Device, Devices
from fogmqtt.client.future import OTHER_PROCESS, JobFuture, Settler
from fogmqtt.client.operators import shared
from fogmqtt.client.progress import Bar, open_bar
from fogmqtt.client.request import JobOptions, Plan, Wanted, make_plan
from fogmqtt.config import GatewayConfig
from fogmqtt.errors import FogError, UsageError
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.gateway.thread_door import GatewayThread, ThreadDoor
from fogmqtt.gateway.threads import wait_for_abandoned
from fogmqtt.images.arrays import Colour
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import Facts
from fogmqtt.setup.brokers import connector, embedded_broker, one_off_id
from fogmqtt.transport.base import Deliver, Transport, Will
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport

if TYPE_CHECKING:
    import dask.array

#: Seconds between two looks at a job whose progress is shown.
LOOK_S: Final = 0.1

#: Seconds that the end of a program waits for work that nobody wants now, such as a whole image
#: in OpenCV, which cannot be interrupted. A stage that takes longer is cut into tiles.
ABANDONED_S: Final = 30.0

#: What becomes of a stream when one of its images fails.
OnError = Literal["raise", "yield"]


class Fog:
    """Processes images with the devices at a broker, or with the cores of this machine.

    It is a context manager. The normal end of the block waits for the jobs that were submitted; an
    exception cancels them. Any thread may call the methods. Images may be arrays of (height, width)
    or (height, width, channels), paths, the bytes of image files, Pillow images, and whatever has
    `__array__`. Each method takes the options of `JobOptions`.
    """

    def __init__(self, config: GatewayConfig, *, is_local: bool, colour: Colour) -> None:
        """Use `fogmqtt.connect`."""
        self.config = config
        self.colour: Colour = colour
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self._pending: set[JobFuture] = set()
        self._shows_this_machine = config.gateway.local != "never"
        gateway_id = one_off_id(config)
        self._thread = GatewayThread(
            config,
            gateway_id,
            _memory() if is_local else _brokers(config, gateway_id),
            broker_within_s=None if is_local else config.broker.connect_timeout_s,
            publishes_jobs=not is_local,
        )
        shared.take(config)
        self._settler = Settler()
        self._end = weakref.finalize(self, _end, self._thread, self._settler, os.getpid())
        self._end.atexit = False
        try:
            self._door = self._thread.__enter__()
            if not is_local and config.gateway.local != "always":
                self._wait_for_broker()
        except BaseException:
            self._is_closed = True
            self._end()
            raise
        _close_at_exit(self)

    # Jobs.

    def run(
        self,
        image: object,
        pipeline: str | None = None,
        *,
        progress: bool = False,
        **options: Unpack[JobOptions],
    ) -> Image:
        """Process an image, and return the resulting array.

        `pipeline` is a configured name or operators, by default the configured one. `progress`
        shows a bar. Raises a FogError that says what is wrong. Ctrl-C ends the job.
        """
        plan = self.plan(pipeline, options, "image")
        return self.run_plan(plan, image, progress=progress)

    def measure(
        self,
        image: object,
        pipeline: str,
        *,
        progress: bool = False,
        **options: Unpack[JobOptions],
    ) -> Facts:
        """Process an image with a pipeline that measures, and return its facts as a dict."""
        plan = self.plan(pipeline, options, "facts")
        facts: Facts = self._run(plan, image, progress=progress)
        return facts

    def submit(
        self, image: object, pipeline: str | None = None, **options: Unpack[JobOptions]
    ) -> JobFuture:
        """Start a job, and return its future. An array is copied, so it may be changed then."""
        return self.start(self.plan(pipeline, options), image)

    def map(
        self,
        images: Iterable[object],
        pipeline: str | None = None,
        *,
        ahead: int = 4,
        errors: OnError = "raise",
        progress: bool = False,
        **options: Unpack[JobOptions],
    ) -> Iterator[Any]:
        """Process a stream of images, and yield their results in order.

        At most `ahead` images are under way, so memory is bounded for a stream without end. Nothing
        begins before the first result is asked for. When the loop ends early, what is under way is
        cancelled. With `errors="raise"` the first error ends the stream, after the results before
        it; with "yield" it takes the place of its image's result. An error of `images` itself is
        raised after the results of the images before it.
        """
        check_stream(ahead, errors)
        return self._stream(images, self.plan(pipeline, options), ahead, errors, progress)

    def map_blocks(
        self, array: dask.array.Array, pipeline: str | None = None, **options: Unpack[JobOptions]
    ) -> dask.array.Array:
        """Process a dask array lazily: one job for each chunk, with the pipeline's own halo.

        The result equals that of the whole image, bit for bit, and has the same chunks. Raises
        UsageError for a pipeline that must see the whole image. It needs the extra `dask`.
        """
        from fogmqtt.client.blocks import map_blocks

        plan = self.plan(pipeline, {**options, "post": ""}, "image")
        result: dask.array.Array = map_blocks(self.run_plan, array, plan)
        return result

    # What is there.

    def devices(self) -> Devices:
        """Return the devices that have announced themselves, and this machine if it takes part.

        It waits until those that are online are known, but not long if the broker is away.
        """
        door = self._open_door()
        with self._explained():
            door.wait_until_settled(self.config.broker.connect_timeout_s)
            views = door.devices()
        here = [Device.this_machine()] if self._shows_this_machine else []
        return Devices([*(Device.of(view) for view in views), *here])

    @property
    def pipelines(self) -> dict[str, str]:
        """The configured pipelines by name."""
        return dict(self.config.pipelines)

    # The end.

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def close(self) -> None:
        """Cancel the jobs under way, and leave the broker. Raises what ended the gateway before."""
        if os.getpid() != self._pid:
            return  # its threads are in the process from which this one was forked
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
            pending = tuple(self._pending)
        if was_closed:
            return
        for job in pending:
            job.cancel()
        try:
            self._thread.__exit__(None, None, None)
        finally:
            self._settler.close()
            self._end()

    def __enter__(self) -> Self:
        self._open_door()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                wait(tuple(self._pending))
        finally:
            # What the block raised counts, and not what it led to.
            with suppress(*(() if kind is None else (FogError,))):
                self.close()

    def __repr__(self) -> str:
        where = "closed" if self._is_closed else f"{len(self._pending)} job(s) under way"
        return f"<Fog at {', '.join(self.config.broker.urls) or 'this machine'}: {where}>"

    def __reduce__(self) -> NoReturn:
        raise FogError("a fog cannot be sent to another process; connect again there")

    # For this package.

    def plan(self, pipeline: str | None, options: JobOptions, wanted: Wanted = "either") -> Plan:
        """Check a pipeline and options."""
        self._open_door()
        return make_plan(self.config, pipeline, options, colour=self.colour, wanted=wanted)

    def run_plan(self, plan: Plan, image: object, *, progress: bool = False) -> Image:
        """Process an image that does not change meanwhile, and return the resulting array."""
        result: Image = self._run(plan, image, progress=progress)
        return result

    def start(self, plan: Plan, image: object) -> JobFuture:
        """Start a job for an array that the caller may change."""
        return self._start(plan, plan.request_for(image, is_kept=True))

    def _run(self, plan: Plan, image: object, *, progress: bool) -> Any:
        """Wait for a result. A job for which nobody waits any more is cancelled."""
        request = plan.request_for(image, is_kept=False)
        with self._cancelled_unless_done(request):
            job = self._start(plan, request)
            if progress:
                with open_bar(job.name, 100) as bar:
                    show_until_done(job, bar)
            return job.result()

    def _start(self, plan: Plan, request: JobRequest) -> JobFuture:
        with self._cancelled_unless_done(request), self._explained():
            with self._lock:
                door = self._open_door()
                job = JobFuture(self, door, self._settler, request, plan.result_of)
                self._pending.add(job)
            job.add_done_callback(self._pending.discard)
            return job

    @contextmanager
    def _cancelled_unless_done(self, request: JobRequest) -> Iterator[None]:
        """Cancel the job if the block raises. Ctrl-C may come before anybody has its future."""
        try:
            yield
        except BaseException:
            with suppress(FogError):  # there is no gateway any more
                self._open_door().cancel(request.job)
            raise

    def _stream(
        self, images: Iterable[object], plan: Plan, ahead: int, errors: OnError, progress: bool
    ) -> Iterator[Any]:
        source, waiting = iter(images), deque[Future[Any]]()
        end: Exception | None = None
        total = len(images) if isinstance(images, Sized) else None
        with open_bar("images", total, is_shown=progress) as bar:
            try:
                while True:
                    while end is None and len(waiting) < ahead:
                        try:
                            image = next(source)
                        except Exception as problem:  # noqa: BLE001  # raised in its turn
                            end = problem
                        else:
                            waiting.append(self.start_or_fail(plan, image))
                            del image  # it is not needed while the program has its turn
                    if not waiting:
                        break
                    result = [result_or_error(waiting.popleft(), errors)]
                    bar.advance()
                    yield result.pop()  # so nothing here holds on to it
            finally:
                for job in waiting:
                    job.cancel()
        if end is not None and not isinstance(end, StopIteration):
            raise end

    def start_or_fail(self, plan: Plan, image: object) -> Future[Any]:
        """Start a job; an image that cannot be one gives a future with the error."""
        try:
            return self.start(plan, image)
        except FogError as problem:
            failed: Future[Any] = Future()
            failed.set_exception(problem)
            return failed

    def _open_door(self) -> ThreadDoor:
        """Return the door to the gateway. Raises FogError if there is none in this process."""
        if os.getpid() != self._pid:
            raise FogError(OTHER_PROCESS)
        if self._is_closed:
            raise FogError("this fog is closed; connect again")
        return self._door

    def _wait_for_broker(self) -> None:
        try:
            self._door.wait_until_connected()
        except FogError:
            self._thread.__exit__(None, None, None)  # raises why
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in a FogError why the gateway ended, if it did by itself."""
        try:
            yield
        except FogError as problem:
            failure = self._thread.failure
            if failure is None:
                raise
            raise FogError(f"{problem}; it ended since {failure}") from failure


def check_stream(ahead: int, errors: str) -> None:
    """Raise UsageError for impossible options of `map`."""
    if ahead < 1:
        raise UsageError(f"ahead={ahead!r}: expected a number of images from 1 on")
    if errors not in ("raise", "yield"):
        raise UsageError(f"errors={errors!r}: expected 'raise' or 'yield'")


def result_or_error(job: Future[Any], errors: OnError) -> Any:
    """Wait for the result of an image; with `yield`, an error takes its place."""
    if errors == "raise":
        return job.result()
    return job.exception() or job.result()


def show_until_done(job: JobFuture, bar: Bar) -> None:
    """Show the progress of a job until it has ended."""
    while wait((job,), LOOK_S).not_done:
        show(job, bar)
    show(job, bar)


def show(job: JobFuture, bar: Bar) -> None:
    """Show the progress of a job at this moment."""
    report = job.report
    shares = "  ".join(f"{name} {one.tiles}" for name, one in sorted(report.devices.items()))
    bar.update(100 * report.fraction, shares)


@contextmanager
def _memory() -> Iterator[Connect]:
    """Give what connects a gateway to nobody: it works with the cores of this machine."""
    broker = MemoryBroker()

    def connect(deliver: Deliver, will: Will) -> Transport:
        return MemoryTransport(broker, "gateway", deliver, will=will)

    yield connect


@contextmanager
def _brokers(config: GatewayConfig, gateway_id: str) -> Iterator[Connect]:
    """Give what connects a gateway to the configured brokers, or to one that is started here."""
    with embedded_broker(config) as broker:
        yield connector(config, gateway_id, broker)


def _end(thread: GatewayThread, settler: Settler, pid: int) -> None:
    """End what a fog has in this process: when it is closed, or dropped without that."""
    if os.getpid() == pid:
        thread.stop()
        settler.close(wait=False)
        shared.give_back()


_open_fogs: weakref.WeakSet[Fog] = weakref.WeakSet()
_has_guard = threading.Lock()


def _close_at_exit(fog: Fog) -> None:
    """Close a fog when the program ends, before Python ends the threads that this needs."""
    _open_fogs.add(fog)
    if _has_guard.acquire(blocking=False):
        # Not a daemon: Python waits for it, and it waits for the end of the program.
        threading.Thread(target=_close_all, name="fog guard", daemon=False).start()


def _close_all() -> None:
    threading.main_thread().join()
    for fog in tuple(_open_fogs):
        with suppress(FogError):
            fog.close()
    wait_for_abandoned(ABANDONED_S)


os.register_at_fork(after_in_child=_open_fogs.clear)
