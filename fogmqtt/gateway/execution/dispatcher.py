"""Feeds the scheduler with events and carries out its actions.

Tiles are cut and encoded, and published in the order of the scheduler's actions. Results are
checked before the scheduler gets them. The event loop does this for light tiles, and threads do it
for others.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, assert_never

import xxhash
from msgspec import Struct

from fogmqtt.config import WireSettings
from fogmqtt.core.scheduling import actions as act
from fogmqtt.core.scheduling.events import (
    DeviceJoined,
    DeviceLost,
    DeviceRefuted,
    Event,
    JobCancelled,
    JobSubmitted,
    LinkConfirmed,
    ResultArrived,
    Tick,
    TileAccepted,
    TileArbitrated,
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
from fogmqtt.gateway.execution.active_stage import ActiveStage, KeptResult, TileCodecs
from fogmqtt.gateway.execution.live_stage import LiveStage
from fogmqtt.gateway.execution.local_workers import LocalTileError, LocalWorkers
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.gateway.jobs.model import Job
from fogmqtt.gateway.jobs.report import TileFailure
from fogmqtt.gateway.jobs.trace import AttemptRecord, DeviceTimes
from fogmqtt.gateway.jobs.trace_values import AttemptEnd
from fogmqtt.gateway.metrics import Metrics
from fogmqtt.gateway.threads import Threads
from fogmqtt.images import codec
from fogmqtt.log import CountedWarnings, one_line
from fogmqtt.operators.api.measuring import Part, encode_part
from fogmqtt.operators.api.results import TileResult
from fogmqtt.transport.base import Payload, payload_size, with_trace
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

#: Seconds for a tile that the gateway does itself to decide which device is right.
_ARBITRATION_S: Final = 600.0

#: Bytes below the broker's limit that are kept free for a message's topic and properties.
PACKET_ROOM: Final = 1024

#: The largest packet of MQTT.
_MQTT_BYTES: Final = 256_000_000

#: A device's limit for packets below this is not believed.
LEAST_PACKET_BYTES: Final = 16_384

#: Job key, tile, attempt, device.
_Lease = tuple[str, int, int, str]


class _CheckedResult(Struct, frozen=True):
    """A result that passed the checks; the scheduler decides next whether to keep it."""

    result: TileResult
    fingerprint: int
    #: The encoded result, for the journal.
    data: memoryview | None
    wire_bytes: int


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
        #: What devices did lately.
        self.throughput = Throughput()
        self._scheduler = scheduler
        self._link = link
        self._threads = threads
        self._workers = workers
        self._bus = events
        self._warnings = warnings
        self._gateway_id = gateway_id
        self._topics = topics
        self._wire = wire
        self._local_allowed = local_allowed
        self._decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected, Overdue)
        self._background = BackgroundTasks()
        #: The limit of packets that devices showed: a result did not fit, or tiles did not arrive.
        self._learned_packet_bytes: int | None = None
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
        self._undecided: dict[_Lease, _CheckedResult] = {}
        #: Tiles to be published for each device, in the scheduler's order.
        self._outgoing: dict[str, deque[_OutgoingTile]] = {}
        #: The tasks of the tiles that run on this machine.
        self._local_tiles: dict[_Lease, asyncio.Task[None]] = {}

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
        packets = (self._link.max_packet_bytes, self._learned_packet_bytes)
        ours, encoding = self._wire.max_message_bytes, self._wire.encoding
        ours = _MQTT_BYTES if whole else ours
        limits = (packet - PACKET_ROOM for packet in packets if packet is not None)
        lowest = min([ours, *limits])
        return MessageLimits(lowest, encoding, configured_bytes=ours if lowest < ours else None)

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

    @property
    def gateway_id(self) -> str:
        """The gateway that devices answer."""
        return self._gateway_id

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
                self._warnings.add("failure", _describe_failure(lease, reason), now())
                if self._learn_packet_limit(stage, message.tile, packet_limit):
                    stage.fail(TooLarge(f"{device}: {reason}"))
                    return
                self._fail_tile(stage, lease, one_line(reason), traceback)
            case Result():
                self._take_result(stage, message, lease, len(payload), at)

    def _learn_packet_limit(self, stage: ActiveStage, tile: int, packet_limit: int) -> bool:
        """Take over the limit of a device that cannot send a result. False if it is no reason."""
        result_bytes = stage_run.largest_result_bytes(stage.run, stage.run.tile(tile))
        if not LEAST_PACKET_BYTES <= packet_limit < result_bytes + PACKET_ROOM:
            return False
        self._learned_packet_bytes = min(packet_limit, self._learned_packet_bytes or packet_limit)
        return True

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
                self._background.start(self._arbitrate(stage, action.tile), "arbitration")
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wakeup = self._scheduler.next_wakeup()
        if wakeup is not None:
            # The event loop has the clock of `now`.
            self._timer = asyncio.get_running_loop().call_at(wakeup, self.feed, Tick())

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
        codecs = stage.codecs(self._wire.codec, self._links, order.device)
        encode = partial(self._encode, stage, order, codecs)
        is_light = codecs.tile == "raw" and stage.run.is_light(stage.run.tile(order.tile))
        encoded = encode if is_light else self._threads.begin_tile(encode)
        outgoing = self._outgoing.get(order.device)
        if outgoing is not None:
            outgoing.append(_OutgoingTile(stage, order, encoded))
            return
        self._outgoing[order.device] = deque([_OutgoingTile(stage, order, encoded)])
        self._background.start(self._publish_tiles(order.device), f"tiles for {order.device}")

    def _encode(self, stage: ActiveStage, order: act.SendTile, codecs: TileCodecs) -> _EncodedTile:
        """Cut and encode a tile; runs in a thread unless the tile is light."""
        run, tile, began_at = stage.run, stage.run.tile(order.tile), now()
        pixels = stage_run.cut_tile(run, tile)
        cut_at = now()
        task = stage_run.make_task(
            run,
            tile,
            pixels=pixels,
            attempt=order.attempt,
            gateway=self._gateway_id,
            lease_s=order.lease_s,
            wire_codec=codecs.tile,
            result_codec=codecs.result,
            budget_s=_budget_s(stage.deadline),
            priority=stage.job.request.priority,
            traceparent=stage.job.request.traceparent,
        )
        payload = encode_in_pieces(task, self._wire.encoding)
        return _EncodedTile(payload, codecs.tile, len(task.pixels), began_at, cut_at, now())

    async def _publish_tiles(self, device: str) -> None:
        """Publish a device's tiles in the scheduler's order."""
        outgoing = self._outgoing[device]
        try:
            while outgoing:
                await self._publish(outgoing.popleft())
        finally:
            del self._outgoing[device]

    async def _publish(self, tile: _OutgoingTile) -> None:
        order, stage = tile.order, tile.stage
        lease = (order.job, order.tile, order.attempt, order.device)
        try:
            encoded = await self._encoded(tile)
            payload, size = encoded.payload, payload_size(encoded.payload)
            if encoded.codec != "raw":
                raw_bytes = (
                    stage.run.tile(order.tile).outer.pixels * stage.run.stage.sent.pixel_bytes
                )
                stage.png.learn(raw_bytes, encoded.pixel_bytes, encoded.seconds)
            stage.trace.encoded(lease[1:], encoded.began_at, encoded.cut_at, encoded.encoded_at)
            if not self._scheduler.holds(*lease):
                return  # the lease or the job ended while the tile was encoded
            self._check_size(order, size)
            self._links.published(lease, size, now())
            stage.trace.published(lease[1:], size)
            self._link.publish(
                self._topics.device(order.device, "tiles"),
                payload,
                answered=partial(self._sent, lease, size),
                qos=self._wire.qos,
                expires_s=order.lease_s,
                content_type=CONTENT_TYPES[self._wire.encoding],
                properties=with_trace(stage.job.request.traceparent),
            )
        except NotConnected:
            return  # Disconnected follows, and ends all leases
        except FogError as problem:
            stage.fail(problem)
        except Exception as problem:
            log.exception("tile %s/%d cannot be sent", order.job, order.tile)
            stage.fail(f"{type(problem).__name__}: {problem}")
        else:
            stage.job.report.bytes_out += size
            self._metrics.sent(order.device, size)

    def _sent(self, lease: _Lease, size: int, at: float) -> None:
        """The broker has a tile: the device's time to accept it begins."""
        self._links.confirmed(lease, lease[3], size, at)
        if (bytes_per_s := self._links.uplink_bytes_per_s) is not None:
            self._scheduler.learn_link(bytes_per_s)
        if lease[0] in self._stages:
            self.feed(TileSent(*lease))

    async def _encoded(self, tile: _OutgoingTile) -> _EncodedTile:
        if isinstance(tile.encoded, asyncio.Future):
            return await tile.encoded
        return await self._threads.tile(tile.encoded, light=True)

    def _check_size(self, order: act.SendTile, size: int) -> None:
        """Raise TooLarge if the broker seems not to take a tile; then the stage is cut again."""
        limit = self._link.max_packet_bytes
        if limit is not None and size > limit - PACKET_ROOM // 2:
            raise TooLarge(
                f"tile {order.job}/{order.tile} has {size} bytes, but the broker's limit "
                f"for a packet is {limit}, or seems to be; make tiles smaller "
                "(wire.max_message_bytes) or raise the broker's max_packet_size"
            )

    def _cancel(self, order: act.CancelTile) -> None:
        """Cancel a tile at its device. A tile whose lease expired may finish: its result counts."""
        if (stage := self._stages.get(order.job)) is not None:
            end = AttemptEnd.EXPIRED if order.expired else AttemptEnd.TAKEN_BACK
            stage.trace.ended((order.tile, order.attempt, order.device), end)
        if order.device != LOCAL:
            lease = (order.job, order.tile, order.attempt, order.device)
            self._learn_from_silence(order, lease)
            self._links.lost(lease, order.device)
            cancel = Cancel(
                job=order.job,
                tile=order.tile,
                attempt=order.attempt,
                gateway=self._gateway_id,
                expired=order.expired,
            )
            self._control(order.device, cancel)
        elif not order.expired:
            lease = (order.job, order.tile, order.attempt, order.device)
            if (task := self._local_tiles.get(lease)) is not None:
                task.cancel()

    def _learn_from_silence(self, order: act.CancelTile, lease: _Lease) -> None:
        """Cut the stage smaller if no device gets tiles of this size."""
        limit, stage = self._links.packet_limit(lease, now()), self._stages.get(order.job)
        if limit is None or stage is None or limit >= self.limits().message_bytes + PACKET_ROOM:
            return
        self._learned_packet_bytes = limit
        log.warning(
            "the broker confirms tiles that no device gets, larger than all that arrived: tiles "
            "and results stay below %d bytes from now on; raise the broker's message_size_limit",
            limit,
        )
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
            done = await self._compute_locally(stage.run, lease[1], lease_s)
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

    async def _compute_locally(self, run: StageRun, index: int, lease_s: float) -> _DoneHere:
        """Do a tile on this machine."""
        tile, asked_at = run.tile(index), now()
        moments: list[float] = []

        def cut() -> TileTask:
            moments.append(now())
            pixels = stage_run.cut_tile(run, tile)
            moments.append(now())
            task = stage_run.make_task(
                run,
                tile,
                pixels=pixels,
                attempt=1,
                gateway=self._gateway_id,
                lease_s=lease_s,
                wire_codec="raw",
            )
            moments.append(now())
            return task

        pixels, finished = await self._workers.do(cut, lease_s)
        done_at = now()
        began_at, cut_at, encoded_at = moments
        times = DeviceTimes(
            max(0.0, asked_at + finished.queue_s - encoded_at),
            finished.start_s,
            finished.compute_s,
            pixels.decode_s,
            pixels.encode_s,
            finished.worker,
        )

        def check() -> _CheckedResult:
            result = stage_run.decode_output(
                run, tile, pixels.shape, pixels.dtype, pixels.data, pixels.codec
            )
            return _CheckedResult(result, _fingerprint(result), pixels.data, 0)

        checked = await self._threads.tile(check)
        return _DoneHere(checked, (began_at, cut_at, encoded_at, done_at), times)

    # Receiving results.

    def _take_result(
        self, stage: ActiveStage, message: Result, lease: _Lease, wire_bytes: int, at: float
    ) -> None:
        """Check a result, at once if its tile is light, and feed it or its failure."""
        run = stage.run
        stage.trace.received(lease[1:], at, _reported_times(message), wire_bytes)
        check = partial(_check_result, run, message, wire_bytes)
        if message.codec != "png" and run.is_light(run.tile(message.tile)):
            self._feed_checked(check, message, lease, at)
            return

        async def check_in_thread() -> None:
            checking = self._threads.begin_tile(check)
            await asyncio.wait([checking])
            self._feed_checked(checking.result, message, lease, at)

        self._background.start(check_in_thread(), f"check of {message.job}/{message.tile}")

    def _feed_checked(
        self, check: Callable[[], _CheckedResult], message: Result, lease: _Lease, at: float
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
        checked: _CheckedResult,
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
            self._background.start(self._resolve(stage, dropped.tile, results), "disagreement")

    # Disagreements.

    async def _arbitrate(self, stage: ActiveStage, index: int) -> None:
        """Do a tile here, because two devices differ, and feed the correct fingerprint."""
        correct = await self._correct_fingerprint(stage.run, index)
        self.feed(TileArbitrated(stage.key, index, correct))

    async def _resolve(
        self, stage: ActiveStage, index: int, results: tuple[tuple[str, int], ...]
    ) -> None:
        """Refute the devices whose result differs from this gateway's."""
        devices = " and ".join(device for device, _ in results)
        text = f"{devices} differ in tile {stage.key}/{index}"
        self._warnings.add("disagreement", text, now())
        correct = await self._correct_fingerprint(stage.run, index)
        for device, fingerprint in results if correct is not None else ():
            if fingerprint != correct:
                reason = f"its result of tile {index} differs from this gateway's"
                self.feed(DeviceRefuted(stage.key, device, reason))

    async def _correct_fingerprint(self, run: StageRun, index: int) -> int | None:
        """Return the fingerprint of a tile done here; None if this machine fails, too."""
        try:
            done = await self._compute_locally(run, index, _ARBITRATION_S)
        except FogError as problem:
            text = f"{run.key}/{index} fails on this gateway too: {problem}"
            self._warnings.add("disagreement", text, now())
            return None
        except Exception:
            log.exception("tile %s/%d cannot be arbitrated", run.key, index)
            return None
        return done.checked.fingerprint


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


class _EncodedTile(Struct, frozen=True):
    """A tile as it is published, and what its codec did."""

    payload: Payload
    codec: str
    pixel_bytes: int
    began_at: float
    cut_at: float
    encoded_at: float

    @property
    def seconds(self) -> float:
        """The time of cutting and encoding."""
        return self.encoded_at - self.began_at


class _DoneHere(Struct, frozen=True):
    """A tile that this machine did: its result, and what took how long."""

    checked: _CheckedResult
    #: When its cutting began, when it was cut, encoded and done.
    moments: tuple[float, float, float, float]
    times: DeviceTimes


class _OutgoingTile(Struct, frozen=True):
    """A tile that is being encoded, or waits until the tiles before it are published."""

    stage: ActiveStage
    order: act.SendTile
    #: What a thread encodes, or the function that encodes a light tile when its turn comes.
    encoded: asyncio.Future[_EncodedTile] | Callable[[], _EncodedTile]


def _budget_s(deadline: float) -> float:
    """Return the seconds until a deadline, as in a message; 0 if there is none."""
    return max(1e-6, deadline - now()) if deadline < math.inf else 0.0


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


def _check_result(run: StageRun, message: Result, wire_bytes: int) -> _CheckedResult:
    """Check and decode a result. Raises WireError."""
    result = stage_run.decode_result(run, run.tile(message.tile), message)
    data, own_codec = message.pixels, run.operators[-1].result_codec
    if message.codec != own_codec and not isinstance(result, Part):
        data = memoryview(codec.encode(result, own_codec))  # the journal names no codec
    return _CheckedResult(result, _fingerprint(result), data, wire_bytes)


def _fingerprint(result: TileResult) -> int:
    data = encode_part(result) if isinstance(result, Part) else result.data.cast("B")
    return xxhash.xxh3_64_intdigest(data)


def _describe_failure(lease: _Lease, reason: str) -> str:
    key, tile, _, device = lease
    return f"{device} at {key}/{tile}: {one_line(reason)}"
