"""Tiles out and results in: what the scheduler orders, carried out. Owner thread only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import xxhash

from fogmqtt.config import WireSettings
from fogmqtt.core.scheduling import actions as act
from fogmqtt.core.scheduling.events import (
    DeviceRefuted,
    Event,
    ResultArrived,
    TileAccepted,
    TileArbitrated,
    TileFailed,
    TileRejected,
)
from fogmqtt.errors import FogError, NotConnected, WireError
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.local_workers import LocalWorkers
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.gateway.jobs.report import TileFailure
from fogmqtt.gateway.jobs.runner import JobRunner
from fogmqtt.gateway.loop import Loop
from fogmqtt.log import one_line
from fogmqtt.operators.api.measuring import Part, encode_part
from fogmqtt.operators.api.results import TileResult
from fogmqtt.transport.base import Transport
from fogmqtt.wire.messages import (
    CONTENT_TYPES,
    Accepted,
    Cancel,
    Control,
    Decoder,
    Failure,
    FromDevice,
    Rejected,
    Result,
    TileTask,
    Warm,
    encode,
)
from fogmqtt.wire.topics import LOCAL, Topics
from fogmqtt.workers.work import Pixels

log = logging.getLogger(__name__)

#: Seconds for a tile that is done here to find out who is right.
_AGAIN_S = 600.0

_Lease = tuple[str, int, int, str]


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A valid result at the door: the scheduler has yet to say whether it is wanted."""

    given: TileResult
    fingerprint: int
    #: As it travels; of a tile done here only where it is written down.
    data: memoryview | None
    bytes: int


class Dispatcher:
    """Carries tiles to devices, or to this machine's own cores, and results back."""

    def __init__(
        self,
        gateway: str,
        wire: WireSettings,
        topics: Topics,
        loop: Loop,
        hands: LocalWorkers,
        conductor: JobRunner,
        feed: Callable[[Event], None],
        complain: Callable[[str, str], None],
    ) -> None:
        self._gateway = gateway
        self._wire = wire
        self._topics = topics
        self._loop = loop
        self._hands = hands
        self._conductor = conductor
        self._feed = feed
        self._complain = complain
        self._decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)
        self._codec = "raw" if wire.codec == "auto" else wire.codec
        self._door: dict[_Lease, _Arrived] = {}
        #: Whose result of each tile counts and what it looked like, by job key: a later one must
        #: be the same.
        self._kept: dict[str, dict[int, tuple[str, int]]] = {}
        self.transport: Transport | None = None
        #: Tiles in this machine's own hands, with what ends them.
        self._here: dict[_Lease, Callable[[], None]] = {}

    @property
    def working(self) -> bool:
        """Whether this machine's own cores hold tiles."""
        return bool(self._here)

    def send(self, order: act.SendTile) -> None:
        """Cut, encode and publish; or do it here."""
        job = self._conductor.job(order.job)
        if job is None or job.run is None:
            return
        if order.device == LOCAL:
            self._do_here(job, job.run, order)
        else:
            self._publish(job, job.run, order)

    def warm(self, device: str) -> None:
        """Tell a device that tiles may come; best effort."""
        self._tell(device, Warm())

    def cancel(self, order: act.CancelTile) -> None:
        """Tell a device to stop; best effort."""
        if order.device == LOCAL:
            self._cancel_here(order)
            return
        cancel = Cancel(
            job=order.job,
            tile=order.tile,
            attempt=order.attempt,
            gateway=self._gateway,
            expired=order.expired,
        )
        self._tell(order.device, cancel)

    def _tell(self, device: str, message: Control) -> None:
        if self.transport is None:
            return
        topic = self._topics.device(device, "control")
        try:
            self.transport.publish(topic, encode(message, "base64"), qos=self._wire.qos)
        except NotConnected:
            return  # the device will find nobody who wants it

    def _cancel_here(self, order: act.CancelTile) -> None:
        if order.expired:
            return  # its worker's time is over too, and it says where it hangs
        self._here.pop((order.job, order.tile, order.attempt, order.device), _nothing)()

    def keep(self, order: act.KeepResult) -> None:
        """Merge the result at the door."""
        arrived = self._door.pop((order.job, order.tile, order.attempt, order.device))
        job = self._conductor.job(order.job)
        if job is None:
            return
        self._kept.setdefault(order.job, {})[order.tile] = order.device, arrived.fingerprint
        job.report.bytes_back += arrived.bytes
        if job.request.journal is not None and arrived.data is not None:
            job.request.journal.keep(job.position, order.tile, order.device, arrived.data)
        self._conductor.keep(job, order, arrived.given)

    def drop(self, order: act.DropResult) -> None:
        """Forget the result at the door; of two that differ, one is wrong."""
        arrived = self._door.pop((order.job, order.tile, order.attempt, order.device))
        log.debug("%s: %s/%d dropped: %s", order.device, order.job, order.tile, order.reason)
        job = self._conductor.job(order.job)
        if job is None or job.run is None or job.run.is_check_tile(order.tile):
            return  # the scheduler compares twins
        job.report.duplicates += 1
        kept = self._kept.get(order.job, {}).get(order.tile)
        if kept is not None and kept[1] != arrived.fingerprint:
            self._judge(job.run, order.tile, (kept, (order.device, arrived.fingerprint)))

    def revoke(self, order: act.RevokeResult) -> None:
        """A kept result does not count any more."""
        self._kept.get(order.job, {}).pop(order.tile, None)
        job = self._conductor.job(order.job)
        if job is None:
            return
        if job.request.journal is not None:
            job.request.journal.revoke(job.position, order.tile)
        self._conductor.revoke(job, order)

    def arbitrate(self, order: act.Arbitrate) -> None:
        """Do a tile here, since two devices differ, and say what is right."""
        job = self._conductor.job(order.job)
        if job is None or job.run is None:
            return
        self._do_again(
            job.run,
            order.tile,
            lambda right: self._feed(TileArbitrated(order.job, order.tile, right)),
        )

    def _judge(self, run: stage_run.StageRun, index: int, said: Sequence[tuple[str, int]]) -> None:
        """Find out which of the devices gave another result than this gateway."""
        devices = " and ".join(device for device, _ in said)
        self._complain("disagreement", f"{devices} differ in tile {run.key}/{index}")

        def judged(right: int | None) -> None:
            for device, fingerprint in said if right is not None else ():
                if fingerprint != right:
                    reason = f"tile {index} is not what this gateway makes of it"
                    self._feed(DeviceRefuted(run.key, device, reason))

        self._do_again(run, index, judged)

    def _do_again(
        self, run: stage_run.StageRun, index: int, then: Callable[[int | None], None]
    ) -> None:
        """Do a tile here; `then` hears the fingerprint of the right result, None if it failed."""

        def failed(reason: str, traceback: str) -> None:
            del traceback
            self._complain("disagreement", f"{run.key}/{index}: nor can we: {reason}")
            then(None)

        def done(arrived: _Arrived, compute_s: float) -> None:
            del compute_s
            then(arrived.fingerprint)

        self._by_hand(run, index, _AGAIN_S, done, failed)

    def forget(self, key: str) -> None:
        """The job is over."""
        self._kept.pop(key, None)

    def received(self, device: str, payload: bytes) -> None:
        """A message on our results topic; `device` is the topic's word. Raises WireError."""
        message = self._decoder.decode(payload)
        lease = (message.job, message.tile, message.attempt, device)
        job = self._conductor.job(message.job)
        if job is None or job.run is None:
            log.debug("%s answered for %s, which is over", device, message.job)
            return
        if message.tile >= (count := job.run.count):
            raise WireError(f"{message.job} has {count} tiles, no tile {message.tile}")
        match message:
            case Accepted():
                self._feed(TileAccepted(*lease))
            case Rejected():
                self._feed(TileRejected(*lease))
            case Failure(reason=said, traceback=traceback):
                reason = one_line(said)
                where = f"{device} at {message.job}/{message.tile}"
                self._complain("failure", f"{where}: {reason}")
                failure = TileFailure(message.tile, message.attempt, device, reason, traceback)
                job.report.failures.append(failure)
                self._feed(TileFailed(*lease, reason))
            case Result():
                self._check(job.run, message, lease, len(payload))

    def _publish(self, job: Job, run: stage_run.StageRun, order: act.SendTile) -> None:
        transport, tile = self.transport, run.tile(order.tile)
        if transport is None:
            return

        def work() -> int:
            task = stage_run.task(
                run,
                tile,
                attempt=order.attempt,
                gateway=self._gateway,
                lease_s=order.lease_s,
                wire_codec=self._codec,
                priority=job.request.priority,
            )
            payload = encode(task, self._wire.encoding)
            transport.publish(
                self._topics.device(order.device, "tiles"),
                payload,
                qos=self._wire.qos,
                expires_s=order.lease_s,
                content_type=CONTENT_TYPES[self._wire.encoding],
            )
            return len(payload)

        def failed(problem: Exception) -> None:
            # Without a link the transport tells us so itself, and all leases come back.
            if not isinstance(problem, NotConnected):
                self._conductor.fail(job, _reason(problem))

        def sent(size: int) -> None:
            job.report.bytes_out += size

        self._loop.submit(work, sent, failed)

    def _do_here(self, job: Job, run: stage_run.StageRun, order: act.SendTile) -> None:
        lease = (order.job, order.tile, order.attempt, order.device)

        def failed(reason: str, traceback: str) -> None:
            self._here.pop(lease, None)
            failure = TileFailure(order.tile, order.attempt, LOCAL, one_line(reason), traceback)
            job.report.failures.append(failure)
            self._feed(TileFailed(*lease, failure.reason))

        def done(arrived: _Arrived, compute_s: float) -> None:
            self._here.pop(lease, None)
            self._arrive(lease, arrived, compute_s, None)

        self._feed(TileAccepted(*lease))
        self._here[lease] = self._by_hand(run, order.tile, order.lease_s, done, failed)

    def _by_hand(
        self,
        run: stage_run.StageRun,
        index: int,
        lease_s: float,
        done: Callable[[_Arrived, float], None],
        failed: Callable[[str, str], None],
    ) -> Callable[[], None]:
        """Do a tile on this machine; returns what cancels it: then it may fail, or be done."""
        tile = run.tile(index)

        def cut() -> TileTask:
            return stage_run.task(
                run, tile, attempt=1, gateway=self._gateway, lease_s=lease_s, wire_codec="raw"
            )

        def wrong(problem: Exception) -> None:
            failed(_reason(problem), "")

        def made(pixels: Pixels, compute_s: float) -> None:
            def taken() -> _Arrived:
                given = stage_run.fitting(run, tile, pixels.shape, pixels.dtype, pixels.data)
                return _Arrived(given, _fingerprint(given), pixels.data, 0)

            self._loop.submit(taken, lambda arrived: done(arrived, compute_s), wrong)

        return self._hands.do(cut, lease_s, made, failed)

    def _check(self, run: stage_run.StageRun, result: Result, lease: _Lease, size: int) -> None:
        tile = run.tile(result.tile)

        def work() -> _Arrived:
            given = stage_run.given(run, tile, result)
            return _Arrived(given, _fingerprint(given), result.pixels, size)

        def failed(problem: Exception) -> None:
            self._complain("bad result", f"{lease[3]}: {problem}")
            self._feed(TileFailed(*lease, _reason(problem)))

        def done(arrived: _Arrived) -> None:
            self._arrive(lease, arrived, result.compute_s, result.start_s)

        self._loop.submit(work, done, failed)

    def _arrive(
        self, lease: _Lease, arrived: _Arrived, compute_s: float | None, start_s: float | None
    ) -> None:
        if self._conductor.job(lease[0]) is None:
            return
        self._door[lease] = arrived
        self._feed(ResultArrived(*lease, compute_s, arrived.fingerprint, start_s))


def _fingerprint(given: TileResult) -> int:
    data = encode_part(given) if isinstance(given, Part) else given.data.cast("B")
    return xxhash.xxh3_64_intdigest(data)


def _nothing() -> None:
    """It is not here any more: there is nothing to end."""


def _reason(problem: Exception) -> str:
    if isinstance(problem, FogError):
        return str(problem)
    return f"{type(problem).__name__}: {problem}"
