"""A modelled device: it receives tiles over a link, queues them, works, answers, crashes, returns.

Its queue is the real agent's, so it repeats, rejects and forgets tiles as a real device does. A
worker is restarted if its tile is cancelled or its lease has run out.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fogmqtt.core.device_queue import DeviceQueue, OfferResult, TileKey
from fogmqtt.core.scheduling.actions import CancelTile, SendTile
from fogmqtt.core.scheduling.events import (
    DeviceJoined,
    DeviceLost,
    DeviceReported,
    Event,
    ResultArrived,
    TileAccepted,
    TileFailed,
    TileRejected,
)
from fogmqtt.simulate.event_queue import EventQueue
from fogmqtt.simulate.fleet import DeviceSpec
from fogmqtt.simulate.link_model import LinkModel
from fogmqtt.simulate.record import Record, Span, SpanState
from fogmqtt.simulate.speed_profile import SpeedProfile
from fogmqtt.simulate.work import ENVELOPE_BYTES, TileWork

#: Tiles that an agent holds beyond those of its workers.
_AHEAD = 14
#: The seconds that a cancelled tile may still run, and the seconds that a new worker needs to
#: start.
_CANCELLED_S, _START_S = 1.0, 0.3
#: The time between two check-ins.
_CHECK_IN_S = 5.0
#: The mean time to reconnect after an outage of the broker.
_RECONNECT_S = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """A tile on its way to a device."""

    send: SendTile
    work: TileWork
    hedge: bool
    gateway: str

    @property
    def key(self) -> TileKey:
        return TileKey(self.gateway, self.send.job, self.send.tile)


class DeviceModel:
    """One device. `deliver` receives its messages; `operators` are its abilities.

    If it `checks_in`, it reports how many tiles it holds.
    """

    def __init__(
        self,
        device: DeviceSpec,
        operators: frozenset[str],
        *,
        seed: int,
        event_queue: EventQueue,
        record: Record,
        deliver: Callable[[Event], None],
        broker_is_up: Callable[[], bool],
        gateway_of: Callable[[str], str],
        checks_in: bool,
    ) -> None:
        self.device = device
        self._operators = operators
        self._latency_s = device.link.latency_ms / 1e3
        #: Each device has its own generator, so that its faults do not depend on other devices.
        self._chance = random.Random(f"{seed}/{device.id}")  # noqa: S311
        self.speed_profile = SpeedProfile(device, self._chance)
        #: The intervals in which it was up; the last one may have no end yet.
        self.uptimes: list[tuple[float, float]] = []
        self._event_queue = event_queue
        self._record = record
        self._deliver = deliver
        self._broker_is_up = broker_is_up
        self._gateway_of = gateway_of
        self._checks_in = checks_in
        self._down = LinkModel(device.link, self._chance)
        self._up = LinkModel(device.link, self._chance)
        self._boot = 0
        #: Counts connections: messages in transit over an older one are lost.
        self._connection = 0
        self._connected = False
        self._died_at = -math.inf
        self._reset()
        event_queue.at(device.joins_at_s, self._start)
        for crash in device.faults.crashes:
            event_queue.at(crash.at_s, self._crash, None, crash.for_s)

    @property
    def up(self) -> bool:
        return bool(self.uptimes) and self.uptimes[-1][1] == math.inf

    def _reset(self) -> None:
        self._queue: DeviceQueue[Order] = DeviceQueue(self.device.workers + _AHEAD, 2**62)
        self._idle_workers = list(range(self.device.workers))
        self._running: dict[TileKey, Span] = {}
        #: Running tiles that are cancelled, and the end of each held tile's lease.
        self._cancelled: set[TileKey] = set()
        self._lease_ends: dict[TileKey, float] = {}
        #: Messages that could not be sent without a connection, with their bytes.
        self._unsent: list[tuple[Event, float]] = []

    # -- what the gateway does ----------------------------------------------------------------

    def send(self, order: Order) -> None:
        """Publish a tile to the device."""
        self._carry_down(order.work.out_bytes, self._receive_tile, order)

    def cancel(self, action: CancelTile) -> None:
        self._carry_down(ENVELOPE_BYTES, self._receive_cancel, action)

    def _carry_down(self, nbytes: float, call: Callable[..., None], item: object) -> None:
        if not self._connected:
            self._record.counts["sent to nobody"] += 1
            return
        arrivals = self._down.carry(self._event_queue.now, nbytes)
        self._count(arrivals)
        for at in arrivals:
            self._event_queue.at(at, call, self._connection, item)

    def _count(self, arrivals: Sequence[float]) -> None:
        copies = len(arrivals)
        if copies != 1:
            self._record.counts["messages lost" if copies == 0 else "messages repeated"] += 1

    # -- what it does ---------------------------------------------------------------------------

    def _receive_tile(self, link: int, order: Order) -> None:
        if link != self._connection:
            self._record.counts["messages lost"] += 1
            return
        send = order.send
        lease = (send.job, send.tile, send.attempt, send.device)
        if order.work.pixels > self.device.max_tile_pixels:
            text = f"{order.work.pixels} pixels where {self.device.max_tile_pixels} fit"
            self._publish(TileFailed(*lease, text), ENVELOPE_BYTES)
            return
        match self._queue.offer(order.key, send.attempt, order):
            case OfferResult.ACCEPTED | OfferResult.ALREADY_HELD:
                self._lease_ends[order.key] = self._event_queue.now + send.lease_s
                self._cancelled.discard(order.key)
                self._publish(TileAccepted(*lease), ENVELOPE_BYTES)
                self._assign()
            case OfferResult.FULL | OfferResult.DRAINING:
                self._publish(TileRejected(*lease), ENVELOPE_BYTES)
            case OfferResult.ALREADY_ENDED:
                pass

    def _receive_cancel(self, link: int, action: CancelTile) -> None:
        key = TileKey(self._gateway_of(action.job), action.job, action.tile)
        if link != self._connection:
            return
        dropped = self._queue.cancel(key, action.attempt, expired=action.expired)
        span = self._running.get(key)
        if dropped and span is not None:
            self._cancelled.add(key)
            self._event_queue.at(span.begin_s + _CANCELLED_S, self._stop, key, span)

    def _assign(self) -> None:
        while self._idle_workers:
            order = self._queue.take()
            if order is None:
                return
            self._work(order)

    def _work(self, order: Order) -> None:
        now, faults, send = self._event_queue.now, self.device.faults, order.send
        pixels: float = order.work.pixels
        if faults.stragglers and self._chance.random() < faults.stragglers:
            pixels *= faults.straggler_factor
        worker = heapq.heappop(self._idle_workers)
        span = Span(
            send.device,
            worker,
            send.job,
            send.tile,
            send.attempt,
            order.work.pixels,
            order.hedge,
            now,
        )
        self._running[order.key] = span
        self._record.spans.append(span)
        end_s = self.speed_profile.finish(now + self.device.overhead_ms / 1e3, pixels)
        self._event_queue.at(end_s, self._finish, order.key, span)
        if end_s > self._lease_ends[order.key]:
            self._event_queue.at(self._lease_ends[order.key], self._stop, order.key, span)

    def _finish(self, key: TileKey, span: Span) -> None:
        if self._running.get(key) is not span:
            return  # the device crashed, or the worker was ended
        self._end(key, span)
        order = self._queue.finish(key)
        self._free(self._boot, span.worker)
        if order is None:
            return
        send = order.send
        span.attempt = send.attempt
        result = ResultArrived(send.job, send.tile, send.attempt, send.device, span.seconds)
        self._publish(result, order.work.back_bytes)

    def _stop(self, key: TileKey, span: Span) -> None:
        """End a worker whose tile is cancelled or whose lease has run out."""
        now = self._event_queue.now
        if self._running.get(key) is not span:
            return
        cancelled, until = key in self._cancelled, self._lease_ends[key]
        if not cancelled and until > now:  # it was leased anew
            self._event_queue.at(until, self._stop, key, span)
            return
        self._end(key, span)
        span.state = SpanState.WASTED
        self._event_queue.at(now + _START_S, self._free, self._boot, span.worker)
        if cancelled:
            self._queue.work_ended_early(key)
        elif (order := self._queue.finish(key)) is not None:
            send = order.send
            lease = (send.job, send.tile, send.attempt, send.device)
            self._publish(TileFailed(*lease, "did not return within its lease"), ENVELOPE_BYTES)

    def _end(self, key: TileKey, span: Span) -> None:
        del self._running[key]
        self._cancelled.discard(key)
        span.end_s = self._event_queue.now

    def _free(self, boot: int, worker: int) -> None:
        if boot == self._boot:
            heapq.heappush(self._idle_workers, worker)
            self._assign()

    def _publish(self, event: Event, nbytes: float) -> None:
        if not self._connected:
            if isinstance(event, ResultArrived):
                self._unsent.append((event, nbytes))
            return
        arrivals = self._up.carry(self._event_queue.now, nbytes)
        self._count(arrivals)
        for at in arrivals:
            self._event_queue.at(at, self._arrive, self._connection, self._up.sent_until(), event)

    def _arrive(self, link: int, sent_s: float, event: Event) -> None:
        if link != self._connection and sent_s > self._died_at:
            self._record.counts["messages lost"] += 1
            return
        self._deliver(event)

    # -- life and death -------------------------------------------------------------------------

    def connect(self) -> None:
        """The broker is back: publish the description and the unsent results."""
        if not self.up or self._connected:
            return
        self._connected = True
        joined = DeviceJoined(
            self.device.id,
            f"boot{self._boot}",
            self.device.workers,
            self._operators,
            max_tile_pixels=self.device.max_tile_pixels,
        )
        # The description is retained and repeated, so it cannot be lost for good.
        now = self._event_queue.now
        self._event_queue.at(now + self._latency_s, self._arrive, self._connection, now, joined)
        unsent, self._unsent = self._unsent, []
        for event, nbytes in unsent:
            self._publish(event, nbytes)

    def _check_in(self, boot: int) -> None:
        """Report the number of held tiles, again and again."""
        if boot != self._boot:
            return
        self._publish(DeviceReported(self.device.id, self._queue.tiles_held), ENVELOPE_BYTES)
        self._event_queue.at(self._event_queue.now + _CHECK_IN_S, self._check_in, boot)

    def disconnect(self) -> None:
        """The broker is gone, and all messages in transit with it."""
        self._drop_connection()
        self._died_at = -math.inf

    def reconnect(self) -> None:
        """The broker is back; the device notices a little later."""
        pause_s = self._chance.expovariate(1 / _RECONNECT_S)
        self._event_queue.at(self._event_queue.now + pause_s, self._connect_if, self._boot)

    def _connect_if(self, boot: int) -> None:
        if boot == self._boot and self._broker_is_up():
            self.connect()

    def _drop_connection(self) -> None:
        self._connected = False
        self._connection += 1
        self._down.reset(self._event_queue.now)
        self._up.reset(self._event_queue.now)

    def _start(self) -> None:
        now, faults = self._event_queue.now, self.device.faults
        self.uptimes.append((now, math.inf))
        if self._broker_is_up():
            self.connect()
        if self._checks_in:
            self._check_in(self._boot)
        if faults.crash_every_s < math.inf:
            crash_s = self._chance.expovariate(1 / faults.crash_every_s)
            down_s = self._chance.expovariate(1 / faults.rejoin_after_s)
            self._event_queue.at(now + crash_s, self._crash, self._boot, down_s)

    def _crash(self, boot: int | None, for_s: float) -> None:
        if not self.up or boot not in (None, self._boot):
            return
        now, name = self._event_queue.now, self.device.id
        self.uptimes[-1] = (self.uptimes[-1][0], now)
        self._record.mark(name, now, "crash", for_s)
        for span in self._running.values():
            span.end_s, span.state = now, SpanState.CUT
        self._boot += 1
        self._reset()
        self._drop_connection()
        self._died_at = now
        published_s = max(self.device.faults.will_after_s, self._latency_s)
        self._event_queue.at(now + published_s, self._will, self._boot)
        self._event_queue.at(now + for_s, self._start)

    def _will(self, boot: int) -> None:
        """The broker publishes the last will, unless the device is back already."""
        if boot == self._boot and not self.up and self._broker_is_up():
            self._deliver(DeviceLost(self.device.id, "last will"))
