"""Feeds the scheduler with events and carries out its actions.

Tiles are published in the order of the scheduler's actions (`outgoing_tiles.py`) or done on this
machine (`local_tiles.py`). Results are checked before the scheduler gets them: by the event loop if
their tiles are light, and by threads otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import assert_never

from fogmqtt.config import WireSettings
from fogmqtt.core.scheduling import actions as act
from fogmqtt.core.scheduling.events import (
    DeviceJoined,
    DeviceLost,
    Event,
    JobCancelled,
    JobSubmitted,
    LinkConfirmed,
    ResultArrived,
    Tick,
    TileAccepted,
    TileFailed,
    TileRejected,
    TileSent,
)
from fogmqtt.core.scheduling.live import LiveDevice
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.errors import BudgetExceeded, FogError, NotConnected, TooLarge, WireError
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.links import DeviceLinks
from fogmqtt.gateway.devices.throughput import Throughput
from fogmqtt.gateway.events import EventBus
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.active_stage import ActiveStage, KeptResult
from fogmqtt.gateway.execution.arbitration import Arbitration
from fogmqtt.gateway.execution.checked_result import CheckedResult, check_result
from fogmqtt.gateway.execution.live_stage import LiveStage
from fogmqtt.gateway.execution.local_tiles import LocalTiles
from fogmqtt.gateway.execution.local_workers import LocalTileError, LocalWorkers
from fogmqtt.gateway.execution.outgoing_tiles import EncodedTile, OutgoingTile, OutgoingTiles
from fogmqtt.gateway.execution.packet_limits import PacketLimits
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.gateway.jobs.report import TileFailure
from fogmqtt.gateway.jobs.trace import AttemptRecord, DeviceTimes
from fogmqtt.gateway.jobs.trace_values import AttemptEnd
from fogmqtt.gateway.metrics import Metrics
from fogmqtt.gateway.threads import Threads
from fogmqtt.log import CountedWarnings, one_line
from fogmqtt.transport.base import payload_size, with_trace
from fogmqtt.wire.messages import (
    CONTENT_TYPES,
    Accepted,
    Cancel,
    Control,
    Decoder,
    Failure,
    FromDevice,
    Overdue,
    Rejected,
    Result,
    TileTask,
    Warm,
    encode,
    encode_in_pieces,
)
from fogmqtt.wire.topics import LOCAL, Topics

log = logging.getLogger(__name__)

#: Job key, tile, attempt, device.
_Lease = tuple[str, int, int, str]


class Dispatcher:
    """Feeds one scheduler and carries out its actions. It belongs to the event loop.

    `changed` is set after every event for the scheduler.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        link: BrokerLink,
        threads: Threads,
        workers: LocalWorkers,
        events: EventBus,
        warnings: CountedWarnings,
        links: DeviceLinks,
        metrics: Metrics,
        *,
        gateway_id: str,
        topics: Topics,
        wire: WireSettings,
        local_allowed: bool,
    ) -> None:
        self.changed = asyncio.Event()
        #: The gateway that devices answer.
        self.gateway_id = gateway_id
        #: What devices did lately.
        self.throughput = Throughput()
        self._scheduler = scheduler
        self._link = link
        self._threads = threads
        self._bus = events
        self._warnings = warnings
        self._topics = topics
        self._wire = wire
        self._local_allowed = local_allowed
        self._decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected, Overdue)
        self._background = BackgroundTasks()
        self._packet_limits = PacketLimits(link, wire)
        self._links = links
        self._metrics = metrics
        self._stages: dict[str, ActiveStage] = {}
        #: Who takes the answers to tasks that the scheduler does not know, by the first part of
        #: their job.
        self._routes: dict[str, Callable[[str, FromDevice], None]] = {}
        #: Events that wait until the actions of an earlier one are carried out.
        self._pending: deque[Event] = deque()
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        #: Results that the scheduler has not decided on.
        self._undecided: dict[_Lease, CheckedResult] = {}
        self._outgoing = OutgoingTiles(
            threads, self._background, links, wire, gateway_id, self._publish
        )
        self._local = LocalTiles(workers, threads, gateway_id)
        #: The tasks of the tiles that run on this machine.
        self._local_tiles: dict[_Lease, asyncio.Task[None]] = {}
        self._arbitration = Arbitration(self._local, warnings, self.feed)

    # For the job's coroutine.

    @contextmanager
    def scheduled(
        self,
        job: Job,
        run: StageRun,
        needs: frozenset[str],
        *,
        helped: bool = False,
        deadline: float = math.inf,
    ) -> Iterator[ActiveStage]:
        """Schedule a stage's tiles until the end of the block.

        `needs` are the abilities that a device must have. `helped`: whether this machine's cores
        should help the devices. Devices drop tiles that are not done at `deadline`. Leaving the
        block early cancels the tiles that are left.
        """
        stage = ActiveStage(job, run, needs, helped, deadline)
        self._stages[run.key] = stage
        self.feed(_submitted(stage))
        try:
            yield stage
        finally:
            self._end(stage)

    @property
    def stages(self) -> tuple[ActiveStage, ...]:
        """The stages that are scheduled."""
        return tuple(self._stages.values())

    def live_stage(self, job: str) -> LiveStage | None:
        """Return the stage of a job whose tiles are scheduled now; None if there is none."""
        active = next((one for one in self._stages.values() if one.job.id == job), None)
        return None if active is None else LiveStage(active, self._scheduler)

    def live_devices(self) -> tuple[LiveDevice, ...]:
        """Return all devices as the scheduler judges them now."""
        return self._scheduler.live_devices()

    def ready_devices(self) -> frozenset[str]:
        """Return the ids of the devices that may get tiles now."""
        return self._scheduler.ready_devices() - self._scheduler.mute()

    def limits(self, *, whole: bool = False) -> MessageLimits:
        """Return the limits of a message: ours, or the broker's if that is lower.

        The broker's limit also applies to results, which a device found to be too large. `whole`:
        for an image that is not cut, to which only MQTT's own and the broker's limit apply.
        """
        return self._packet_limits.limits(whole=whole)

    def limit_tiles(self, seconds: float) -> None:
        """Let no tile that can be halved take longer than this; infinity for no such limit."""
        self._scheduler.limit_tiles(seconds)

    def works_locally(self) -> bool:
        """Whether tiles run on this machine."""
        return bool(self._local_tiles)

    def feed(self, event: Event) -> None:
        """Pass an event to the scheduler, and carry out its actions.

        Events that the actions cause are handled afterwards, in order.
        """
        self._pending.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._pending:
                event = self._pending.popleft()
                actions = self._scheduler.handle(event, now())
                self._trace_end(event)
                for action in actions:
                    self._perform(action)
        finally:
            self._handling = False
        self._set_timer()
        self.changed.set()

    def route(self, key: str, take: Callable[[str, FromDevice], None]) -> None:
        """Give answers to tasks whose job begins with `key` and a dot to `take`.

        It gets the device and the message, and may raise WireError.
        """
        self._routes[key] = take

    def unroute(self, key: str) -> None:
        """Take no more such answers."""
        self._routes.pop(key, None)

    def publish_task(self, device: str, task: TileTask) -> None:
        """Send a task that the scheduler does not know. Without a link it is dropped."""
        payload = encode_in_pieces(task, self._wire.encoding)
        with suppress(NotConnected):
            self._link.publish(
                self._topics.device(device, "tiles"),
                payload,
                qos=self._wire.qos,
                expires_s=task.lease_s,
                content_type=CONTENT_TYPES[self._wire.encoding],
            )
            self._metrics.sent(device, payload_size(payload))

    def warm(self, device: str) -> None:
        """Let a device start its workers, because tiles may come."""
        self._control(device, Warm())

    def received(self, device: str, payload: bytes | memoryview, at: float) -> None:
        """Take a message from our results topic, which names the device.

        It arrived at `at`, in seconds of the monotonic clock. Raises WireError.
        """
        message = self._decoder.decode(payload)
        self._metrics.received(device, len(payload))
        stage = self._stages.get(message.job)
        take = self._routes.get(message.job.partition(".")[0])
        if take is not None:
            take(device, message)
            return
        if stage is None:
            log.debug("%s replied for %s, which has ended", device, message.job)
            return
        if message.tile >= (count := stage.run.count):
            raise WireError(f"{message.job} has {count} tiles, no tile {message.tile}")
        lease = (message.job, message.tile, message.attempt, device)
        if not isinstance(message, Accepted):
            self._links.lost(lease, device)
        match message:
            case Accepted():
                self._links.accepted(lease, device, at)
                stage.trace.accepted(lease[1:], at)
                self.feed(TileAccepted(*lease, at))
            case Rejected():
                self.feed(TileRejected(*lease))
            case Overdue(after_s=after_s):
                stage.fail(BudgetExceeded(f"{device} dropped a tile after {after_s:.3f} s"))
            case Failure(reason=reason, traceback=traceback, packet_limit=packet_limit):
                where = f"{device} at {message.job}/{message.tile}"
                self._warnings.add("failure", f"{where}: {one_line(reason)}", now())
                core = stage.run.tile(message.tile).core
                result_bytes = core.pixels * stage_run.result_pixel_bytes(stage.run.stage)
                if self._packet_limits.refused(packet_limit, result_bytes):
                    stage.fail(TooLarge(f"{device}: {reason}"))
                    return
                self._fail_tile(stage, lease, one_line(reason), traceback)
            case Result():
                self._take_result(stage, message, lease, len(payload), at)

    async def close(self) -> None:
        """Cancel all tasks."""
        if self._timer is not None:
            self._timer.cancel()
        await self._background.close()

    def _trace_end(self, event: Event) -> None:
        """Record the attempts that an event ended."""
        match event:
            case TileFailed(job, tile, attempt, device, reason) if job in self._stages:
                key = tile, attempt, device
                self._stages[job].trace.ended(key, AttemptEnd.FAILED, one_line(reason))
            case TileRejected(job, tile, attempt, device) if job in self._stages:
                self._stages[job].trace.ended((tile, attempt, device), AttemptEnd.REJECTED)
            case DeviceLost(device) | DeviceJoined(device):
                for stage in self._stages.values():
                    held = [one for one in stage.trace.live() if one.device == device]
                    self._trace_lost(stage, held)
            case _:
                pass

    def _trace_lost(self, stage: ActiveStage, attempts: Iterable[AttemptRecord]) -> None:
        """Record which of these attempts the scheduler holds no more, without a word of it."""
        for one in attempts:
            if not self._scheduler.holds(stage.key, *one.key):
                stage.trace.ended(one.key, AttemptEnd.LOST)

    # The scheduler's actions.

    def _perform(self, action: act.Action) -> None:
        match action:
            case act.Quarantine(device, seconds, reason):
                text = "%s is in quarantine for %.0f s: %s"
                log.warning(text, device, seconds, reason, extra={"device": device})
            case act.DistrustTimings(device, claim):
                text = "%s %s: its own timings are not used"
                log.warning(text, device, claim, extra={"device": device})
            case act.CancelTile():
                self._cancel(action)
            case act.ConfirmLink():
                self._background.start(self._confirm_link(), "link")
            case _:
                stage = self._stages.get(action.job)
                if stage is not None:
                    self._perform_for(stage, action)

    def _perform_for(self, stage: ActiveStage, action: _StageAction) -> None:
        match action:
            case act.SendTile():
                self._send(stage, action)
            case act.SplitTile():
                _split(stage, action)
            case act.KeepResult():
                self._keep(stage, action)
            case act.DropResult():
                self._drop(stage, action)
            case act.RevokeResult():
                _revoke(stage, action)
            case act.Arbitrate():
                arbitrate = self._arbitration.arbitrate(stage.run, action.tile)
                self._background.start(arbitrate, "arbitration")
            case act.FinishJob():
                stage.finish()
            case act.FailJob(reason=reason):
                stage.over = True
                stage.fail("\n".join(filter(None, (reason, stage.job.report.last_traceback()))))
            case act.ReportStarved():
                self._report_starved(stage, action)
            case _:
                assert_never(action)

    async def _confirm_link(self) -> None:
        """Tell the scheduler when all that had arrived is handled."""
        try:
            confirmed_at = await self._link.confirm()
        except NotConnected:
            confirmed_at = now()  # only tiles of this machine are left, which need no link
        self.feed(LinkConfirmed(confirmed_at))

    def _set_timer(self) -> None:
        """Wake up in time for the scheduler.

        Each event moves that time a little, most often to a later one. Then the timer stays, and is
        set again when it fires.
        """
        wakeup, timer = self._scheduler.next_wakeup(), self._timer
        if timer is not None:
            if wakeup is not None and timer.when() <= wakeup:
                return
            timer.cancel()
            self._timer = None
        if wakeup is not None:
            # The event loop has the clock of `now`.
            self._timer = asyncio.get_running_loop().call_at(wakeup, self._wake_up)

    def _wake_up(self) -> None:
        self._timer = None
        wakeup = self._scheduler.next_wakeup()
        if wakeup is not None and wakeup <= now():
            self.feed(Tick())
        else:
            self._set_timer()

    def _end(self, stage: ActiveStage) -> None:
        """Remove a stage from the scheduler, and add its figures to the report."""
        del self._stages[stage.key]
        stage.trace.close()
        progress = self._scheduler.progress(stage.key)
        report = stage.job.report
        report.retries += progress.retries
        report.hedges += progress.hedges
        report.checked += progress.checked
        if not stage.over:
            self.feed(JobCancelled(stage.key, now() >= stage.deadline))
        self._scheduler.forget(stage.key)
        for lease in [lease for lease in self._undecided if lease[0] == stage.key]:
            del self._undecided[lease]

    def _report_starved(self, stage: ActiveStage, action: act.ReportStarved) -> None:
        stage.starved = True
        if self._local_allowed:
            consequence = "this gateway does the rest itself"
        else:
            consequence = "waiting, since gateway.local is never"
        text = f"no device for {action.waited_s:.0f} s: {action.reason}; {consequence}"
        self._bus.notice(stage.job.report, text)

    # Sending tiles.

    def _send(self, stage: ActiveStage, order: act.SendTile) -> None:
        self._trace_lost(stage, stage.trace.live(order.tile))
        stage.trace.ordered((order.tile, order.attempt, order.device))
        if order.device == LOCAL:
            lease = (order.job, order.tile, order.attempt, order.device)
            work = self._do_locally(stage, lease, order.lease_s)
            self._local_tiles[lease] = self._background.start(work, f"local tile {order.tile}")
            return
        self._outgoing.add(stage, order)

    def _publish(self, tile: OutgoingTile, encoded: EncodedTile) -> None:
        """Publish a tile, unless its lease ended. Raises NotConnected and TooLarge."""
        order, stage, request = tile.order, tile.stage, tile.stage.job.request
        lease = (order.job, order.tile, order.attempt, order.device)
        if not self._scheduler.holds(*lease):
            return  # the lease or the job ended while the tile was encoded
        size = payload_size(encoded.payload)
        self._packet_limits.check(f"{order.job}/{order.tile}", size)
        self._links.published(lease, size, now())
        stage.trace.published(lease[1:], size)
        self._link.publish(
            self._topics.device(order.device, "tiles"),
            encoded.payload,
            answered=partial(self._sent, lease, size),
            qos=self._wire.qos,
            expires_s=order.lease_s,
            content_type=CONTENT_TYPES[self._wire.encoding],
            properties=with_trace(request.traceparent, request.tracestate),
        )
        stage.job.report.bytes_out += size
        self._metrics.sent(order.device, size)

    def _sent(self, lease: _Lease, size: int, at: float) -> None:
        """The broker has a tile: the device's time to accept it begins."""
        self._links.confirmed(lease, lease[3], size, at)
        if (bytes_per_s := self._links.uplink_bytes_per_s) is not None:
            self._scheduler.learn_link(bytes_per_s)
        if lease[0] in self._stages:
            self.feed(TileSent(*lease))

    def _cancel(self, order: act.CancelTile) -> None:
        """Cancel a tile at its device. A tile whose lease expired may finish: its result counts."""
        lease = (order.job, order.tile, order.attempt, order.device)
        if (stage := self._stages.get(order.job)) is not None:
            end = AttemptEnd.EXPIRED if order.expired else AttemptEnd.TAKEN_BACK
            stage.trace.ended(lease[1:], end)
        if order.device != LOCAL:
            self._learn_from_silence(order, lease)
            self._links.lost(lease, order.device)
            cancel = Cancel(
                job=order.job,
                tile=order.tile,
                attempt=order.attempt,
                gateway=self.gateway_id,
                expired=order.expired,
            )
            self._control(order.device, cancel)
        elif not order.expired and (task := self._local_tiles.get(lease)) is not None:
            task.cancel()

    def _learn_from_silence(self, order: act.CancelTile, lease: _Lease) -> None:
        """Cut the stage smaller if no device gets tiles of this size."""
        limit, stage = self._links.packet_limit(lease, now()), self._stages.get(order.job)
        if limit is not None and stage is not None and self._packet_limits.silent(limit):
            stage.fail(TooLarge(f"tiles of over {limit} bytes do not arrive"))

    def _control(self, device: str, message: Control) -> None:
        topic = self._topics.device(device, "control")
        try:
            self._link.publish(topic, encode(message, "base64"), qos=self._wire.qos)
        except NotConnected:
            return  # not needed: the scheduler drops a result that is not wanted

    # Tiles on this machine.

    async def _do_locally(self, stage: ActiveStage, lease: _Lease, lease_s: float) -> None:
        self.feed(TileSent(*lease))
        self.feed(TileAccepted(*lease))
        stage.trace.accepted(lease[1:], now())
        try:
            done = await self._local.do(stage.run, lease[1], lease_s)
        except LocalTileError as problem:
            self._fail_tile(stage, lease, one_line(str(problem)), problem.traceback)
        except FogError as problem:
            self._fail_tile(stage, lease, str(problem), "")
        except Exception as problem:
            log.exception("tile %s/%d cannot be done on this machine", lease[0], lease[1])
            self._fail_tile(stage, lease, f"{type(problem).__name__}: {problem}", "")
        else:
            stage.trace.done_here(lease[1:], *done.moments, done.times)
            self._feed_result(lease, done.checked, done.times.compute_s, None, now())
        finally:
            self._local_tiles.pop(lease, None)
            self.changed.set()

    # Receiving results.

    def _take_result(
        self, stage: ActiveStage, message: Result, lease: _Lease, wire_bytes: int, at: float
    ) -> None:
        """Check a result, at once if its tile is light, and feed it or its failure."""
        run = stage.run
        stage.trace.received(lease[1:], at, _reported_times(message), wire_bytes)
        check = partial(check_result, run, message, wire_bytes)
        if message.codec != "png" and run.is_light(run.tile(message.tile)):
            self._feed_checked(check, message, lease, at)
            return

        async def check_in_thread() -> None:
            checking = self._threads.begin_tile(check)
            await asyncio.wait([checking])
            self._feed_checked(checking.result, message, lease, at)

        self._background.start(check_in_thread(), f"check of {message.job}/{message.tile}")

    def _feed_checked(
        self, check: Callable[[], CheckedResult], message: Result, lease: _Lease, at: float
    ) -> None:
        """Feed what `check` returns, or its exception as a failure of the tile."""
        try:
            checked = check()
        except FogError as problem:
            self._warnings.add("bad result", f"{lease[3]}: {problem}", now())
            self.feed(TileFailed(*lease, str(problem)))
        except Exception as problem:
            log.exception("the result of tile %s/%d cannot be checked", lease[0], lease[1])
            self.feed(TileFailed(*lease, f"{type(problem).__name__}: {problem}"))
        else:
            self._feed_result(lease, checked, message.compute_s, message.start_s, at)

    def _feed_result(
        self,
        lease: _Lease,
        checked: CheckedResult,
        compute_s: float | None,
        start_s: float | None,
        at: float,
    ) -> None:
        if (stage := self._stages.get(lease[0])) is not None:
            stage.trace.checked(lease[1:])
            self._undecided[lease] = checked
            self.feed(ResultArrived(*lease, compute_s, checked.fingerprint, start_s, at))

    def _fail_tile(self, stage: ActiveStage, lease: _Lease, reason: str, traceback: str) -> None:
        _, tile, attempt, device = lease
        stage.job.report.failures.append(TileFailure(tile, attempt, device, reason, traceback))
        self.feed(TileFailed(*lease, reason))

    def _keep(self, stage: ActiveStage, kept: act.KeepResult) -> None:
        checked = self._undecided.pop((kept.job, kept.tile, kept.attempt, kept.device))
        stage.trace.kept((kept.tile, kept.attempt, kept.device))
        job, run = stage.job, stage.run
        self._note_throughput(run, kept)
        stage.kept[kept.tile] = kept.device, checked.fingerprint
        job.report.bytes_back += checked.wire_bytes
        job.report.credit(kept.device, run.tile(kept.tile).core)
        job.report.done += 1
        if job.request.journal is not None and checked.data is not None:
            job.request.journal.keep_tile(job.position, kept.tile, kept.device, checked.data)
        stage.put(KeptResult(kept.tile, kept.device, checked.result))

    def _note_throughput(self, run: StageRun, kept: act.KeepResult) -> None:
        moment, pixels = now(), run.tile(kept.tile).core.pixels
        sent_at = self._scheduler.sent_at(kept.job, kept.tile, kept.attempt, kept.device)
        latency_s = None if sent_at is None else moment - sent_at
        self.throughput.note(kept.device, pixels, latency_s, moment)

    def _drop(self, stage: ActiveStage, dropped: act.DropResult) -> None:
        """Forget a result. If it differs from the kept one, one of the two is wrong."""
        checked = self._undecided.pop((dropped.job, dropped.tile, dropped.attempt, dropped.device))
        stage.trace.dropped((dropped.tile, dropped.attempt, dropped.device), dropped.reason)
        log.debug("%s: %s/%d dropped: %s", dropped.device, stage.key, dropped.tile, dropped.reason)
        if stage.run.is_check_tile(dropped.tile):
            return  # the scheduler compares these itself
        stage.job.report.duplicates += 1
        kept = stage.kept.get(dropped.tile)
        if kept is not None and kept[1] != checked.fingerprint:
            results = (kept, (dropped.device, checked.fingerprint))
            refute = self._arbitration.refute(stage.run, dropped.tile, results)
            self._background.start(refute, "disagreement")


_StageAction = (
    act.SendTile
    | act.SplitTile
    | act.KeepResult
    | act.DropResult
    | act.RevokeResult
    | act.Arbitrate
    | act.FinishJob
    | act.FailJob
    | act.ReportStarved
)


def _submitted(stage: ActiveStage) -> JobSubmitted:
    job, run = stage.job, stage.run
    return JobSubmitted(
        run.key,
        run.kind,
        run.tile_pixels,
        stage.needs,
        run.check_tiles,
        done=frozenset(run.done) | run.halved,
        # A later run of the gateway knows halves by their indices, and nothing of check tiles.
        halves=() if job.request.journal and run.check_tiles else run.halves_pixels,
        priority=job.request.priority,
        pixel_bytes=run.stage.sent.pixel_bytes,
    )


def _split(stage: ActiveStage, split: act.SplitTile) -> None:
    """Replace a tile by its two halves."""
    job, run = stage.job, stage.run
    run.split(split.tile, split.first, split.second)
    stage.trace.split(split.tile, [run.tile(split.first), run.tile(split.second)])
    job.report.tiles += 1
    if job.request.journal is not None:
        job.request.journal.split_tile(job.position, split.tile, split.first, split.second)


def _revoke(stage: ActiveStage, revoked: act.RevokeResult) -> None:
    """Discard a kept result; another result will be pasted over it."""
    job = stage.job
    stage.kept.pop(revoked.tile, None)
    stage.trace.revoked(revoked.tile)
    job.report.uncredit(revoked.device, stage.run.tile(revoked.tile).core)
    job.report.done -= 1
    if job.request.journal is not None:
        job.request.journal.revoke_tile(job.position, revoked.tile)


def _reported_times(message: Result) -> DeviceTimes:
    return DeviceTimes(
        message.queue_s,
        message.start_s,
        message.compute_s,
        message.decode_s,
        message.encode_s,
        message.worker,
    )
