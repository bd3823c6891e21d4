"""A modelled device: takes tiles over a link, queues them, works, answers, crashes, comes back.

Its queue is the real agent's worklist, so it repeats, refuses and forgets as a real one does. A
worker that has a cancelled tile, or one whose lease has run out, is ended and started anew.
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
    Event,
    ResultArrived,
    TileAccepted,
    TileFailed,
    TileRejected,
)
from fogmqtt.simulate.event_queue import EventQueue
from fogmqtt.simulate.fleet import DeviceSpec
from fogmqtt.simulate.link_model import LinkModel
from fogmqtt.simulate.record import Fate, Record, Span
from fogmqtt.simulate.speed_profile import SpeedProfile
from fogmqtt.simulate.work import ENVELOPE_BYTES, TileWork

#: Tiles that an agent holds beyond those that its workers do.
_AHEAD = 14
#: A cancelled tile may run for so long, and a new worker takes so long to start, seconds.
_CANCELLED_S, _START_S = 1.0, 0.3
#: Until a device is back after the broker is: the mean.
_RECONNECT_S = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """A tile on its way to a device."""

    send: SendTile
    work: TileWork
    hedge: bool

    @property
    def key(self) -> TileKey:
        return TileKey("gateway", self.send.job, self.send.tile)


class DeviceModel:
    """One device; `hear` takes what it says to the gateway, `operators` is what it can do."""

    def __init__(
        self,
        device: DeviceSpec,
        operators: frozenset[str],
        *,
        seed: int,
        agenda: EventQueue,
        record: Record,
        hear: Callable[[Event], None],
        broker_is_up: Callable[[], bool],
    ) -> None:
        self.device = device
        self._operators = operators
        self._latency_s = device.link.latency_ms / 1e3
        #: Of its own, so that what befalls a device does not depend on who else is there.
        self._chance = random.Random(f"{seed}/{device.id}")  # noqa: S311
        self.pace = SpeedProfile(device, self._chance)
        #: From when to when it was up; the last interval may have no end yet.
        self.lives: list[tuple[float, float]] = []
        self._agenda = agenda
        self._record = record
        self._hear = hear
        self._broker_is_up = broker_is_up
        self._down = LinkModel(device.link, self._chance)
        self._up = LinkModel(device.link, self._chance)
        self._boot = 0
        #: Counts connections: what was on its way over an older one is lost.
        self._link = 0
        self._linked = False
        self._died_at = -math.inf
        self._begin_life()
        agenda.at(device.joins_at_s, self._rise)
        for crash in device.faults.crashes:
            agenda.at(crash.at_s, self._crash, None, crash.for_s)

    @property
    def up(self) -> bool:
        return bool(self.lives) and self.lives[-1][1] == math.inf

    def _begin_life(self) -> None:
        self._worklist: DeviceQueue[Order] = DeviceQueue(self.device.workers + _AHEAD, 2**62)
        self._lanes = list(range(self.device.workers))
        self._running: dict[TileKey, Span] = {}
        #: Running tiles that nobody wants, and until when each held one's lease lasts.
        self._cancelled: set[TileKey] = set()
        self._until: dict[TileKey, float] = {}
        #: What could not be said without a link, and its bytes.
        self._kept: list[tuple[Event, float]] = []

    # -- what the gateway does ----------------------------------------------------------------

    def send(self, order: Order) -> None:
        """Publish a tile to it."""
        self._carry_down(order.work.out_bytes, self._take, order)

    def cancel(self, action: CancelTile) -> None:
        self._carry_down(ENVELOPE_BYTES, self._drop, action)

    def _carry_down(self, nbytes: float, call: Callable[..., None], item: object) -> None:
        if not self._linked:
            self._record.counts["sent to nobody"] += 1
            return
        arrivals = self._down.carry(self._agenda.now, nbytes)
        self._count(arrivals)
        for at in arrivals:
            self._agenda.at(at, call, self._link, item)

    def _count(self, arrivals: Sequence[float]) -> None:
        copies = len(arrivals)
        if copies != 1:
            self._record.counts["messages lost" if copies == 0 else "messages repeated"] += 1

    # -- what it does ---------------------------------------------------------------------------

    def _take(self, link: int, order: Order) -> None:
        if link != self._link:
            self._record.counts["messages lost"] += 1
            return
        send = order.send
        lease = (send.job, send.tile, send.attempt, send.device)
        if order.work.pixels > self.device.max_tile_pixels:
            text = f"{order.work.pixels} pixels where {self.device.max_tile_pixels} fit"
            self._say(TileFailed(*lease, text), ENVELOPE_BYTES)
            return
        match self._worklist.offer(order.key, send.attempt, order):
            case OfferResult.ACCEPTED | OfferResult.ALREADY_HELD:
                self._until[order.key] = self._agenda.now + send.lease_s
                self._cancelled.discard(order.key)
                self._say(TileAccepted(*lease), ENVELOPE_BYTES)
                self._assign()
            case OfferResult.FULL | OfferResult.DRAINING:
                self._say(TileRejected(*lease), ENVELOPE_BYTES)
            case OfferResult.ALREADY_ENDED:
                pass

    def _drop(self, link: int, action: CancelTile) -> None:
        key = TileKey("gateway", action.job, action.tile)
        if link != self._link:
            return
        dropped = self._worklist.cancel(key, action.attempt, expired=action.expired)
        span = self._running.get(key)
        if dropped and span is not None:
            self._cancelled.add(key)
            self._agenda.at(span.begin_s + _CANCELLED_S, self._stop, key, span)

    def _assign(self) -> None:
        while self._lanes:
            order = self._worklist.take()
            if order is None:
                return
            self._work(order)

    def _work(self, order: Order) -> None:
        now, faults, send = self._agenda.now, self.device.faults, order.send
        pixels: float = order.work.pixels
        if faults.stragglers and self._chance.random() < faults.stragglers:
            pixels *= faults.straggler_factor
        worker = heapq.heappop(self._lanes)
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
        end_s = self.pace.finish(now + self.device.overhead_ms / 1e3, pixels)
        self._agenda.at(end_s, self._finish, order.key, span)
        if end_s > self._until[order.key]:
            self._agenda.at(self._until[order.key], self._stop, order.key, span)

    def _finish(self, key: TileKey, span: Span) -> None:
        if self._running.get(key) is not span:
            return  # the device crashed, or the worker was ended
        self._end(key, span)
        order = self._worklist.finish(key)
        self._free(self._boot, span.worker)
        if order is None:
            return
        send = order.send
        span.attempt = send.attempt
        result = ResultArrived(send.job, send.tile, send.attempt, send.device, span.seconds)
        self._say(result, order.work.back_bytes)

    def _stop(self, key: TileKey, span: Span) -> None:
        """End a worker that has what nobody wants, or had it for longer than its lease."""
        now = self._agenda.now
        if self._running.get(key) is not span:
            return
        cancelled, until = key in self._cancelled, self._until[key]
        if not cancelled and until > now:  # it was leased anew
            self._agenda.at(until, self._stop, key, span)
            return
        self._end(key, span)
        span.fate = Fate.WASTED
        self._agenda.at(now + _START_S, self._free, self._boot, span.worker)
        if cancelled:
            self._worklist.work_ended_early(key)
        elif (order := self._worklist.finish(key)) is not None:
            send = order.send
            lease = (send.job, send.tile, send.attempt, send.device)
            self._say(TileFailed(*lease, "did not return within its lease"), ENVELOPE_BYTES)

    def _end(self, key: TileKey, span: Span) -> None:
        del self._running[key]
        self._cancelled.discard(key)
        span.end_s = self._agenda.now

    def _free(self, boot: int, worker: int) -> None:
        if boot == self._boot:
            heapq.heappush(self._lanes, worker)
            self._assign()

    def _say(self, event: Event, nbytes: float) -> None:
        if not self._linked:
            if isinstance(event, ResultArrived):
                self._kept.append((event, nbytes))
            return
        arrivals = self._up.carry(self._agenda.now, nbytes)
        self._count(arrivals)
        for at in arrivals:
            self._agenda.at(at, self._arrive, self._link, self._up.sent_until(), event)

    def _arrive(self, link: int, sent_s: float, event: Event) -> None:
        if link != self._link and sent_s > self._died_at:
            self._record.counts["messages lost"] += 1
            return
        self._hear(event)

    # -- life and death -------------------------------------------------------------------------

    def connect(self) -> None:
        """The broker is there again: say who we are, and what was kept."""
        if not self.up or self._linked:
            return
        self._linked = True
        joined = DeviceJoined(
            self.device.id,
            f"boot{self._boot}",
            self.device.workers,
            self._operators,
            max_tile_pixels=self.device.max_tile_pixels,
        )
        # Retained, and repeated with every check-in: it does not get lost for good.
        now = self._agenda.now
        self._agenda.at(now + self._latency_s, self._arrive, self._link, now, joined)
        kept, self._kept = self._kept, []
        for event, nbytes in kept:
            self._say(event, nbytes)

    def disconnect(self) -> None:
        """The broker is gone, with everything that was on its way."""
        self._unlink()
        self._died_at = -math.inf

    def reconnect(self) -> None:
        """The broker is back; a device notices a little later."""
        pause_s = self._chance.expovariate(1 / _RECONNECT_S)
        self._agenda.at(self._agenda.now + pause_s, self._connect_if, self._boot)

    def _connect_if(self, boot: int) -> None:
        if boot == self._boot and self._broker_is_up():
            self.connect()

    def _unlink(self) -> None:
        self._linked = False
        self._link += 1
        self._down.reset(self._agenda.now)
        self._up.reset(self._agenda.now)

    def _rise(self) -> None:
        now, faults = self._agenda.now, self.device.faults
        self.lives.append((now, math.inf))
        if self._broker_is_up():
            self.connect()
        if faults.crash_every_s < math.inf:
            crash_s = self._chance.expovariate(1 / faults.crash_every_s)
            rest_s = self._chance.expovariate(1 / faults.rejoin_after_s)
            self._agenda.at(now + crash_s, self._crash, self._boot, rest_s)

    def _crash(self, boot: int | None, for_s: float) -> None:
        if not self.up or boot not in (None, self._boot):
            return
        now, name = self._agenda.now, self.device.id
        self.lives[-1] = (self.lives[-1][0], now)
        self._record.mark(name, now, "crash", for_s)
        for span in self._running.values():
            span.end_s, span.fate = now, Fate.CUT
        self._boot += 1
        self._begin_life()
        self._unlink()
        self._died_at = now
        told_s = max(self.device.faults.will_after_s, self._latency_s)
        self._agenda.at(now + told_s, self._will, self._boot)
        self._agenda.at(now + for_s, self._rise)

    def _will(self, boot: int) -> None:
        """The broker tells its last will, unless it is back: then that said it all."""
        if boot == self._boot and not self.up and self._broker_is_up():
            self._hear(DeviceLost(self.device.id, "last will"))
