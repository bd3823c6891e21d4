"""The device's agent: takes tiles, works on them, answers, and says that it is there.

One thread owns everything here, the one inside `run`. The transport's thread and the workers
only put things into the inbox, so nothing is locked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final

from fogmqtt.agent.presence_publisher import PresencePublisher
from fogmqtt.agent.result_publisher import ResultPublisher
from fogmqtt.agent.task_decoder import TaskDecoder, Unfit
from fogmqtt.agent.tile_lease import TileLease
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.core.device_queue import DeviceQueue, Key, QueueEntry
from fogmqtt.core.duplicate_id import DuplicateIdCheck
from fogmqtt.errors import DuplicateId, NoBroker, WireError
from fogmqtt.log import CountedWarnings, one_line
from fogmqtt.operators.api import registry
from fogmqtt.transport.base import (
    Connected,
    Deliver,
    Disconnected,
    Received,
    Refused,
    Transport,
    Will,
)
from fogmqtt.wire.messages import Cancel, Control, Decoder, DeviceInfo, Drain, Warm
from fogmqtt.wire.topics import Topics
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.throttle import Throttle
from fogmqtt.workers.work import Dropped, Finished

log = logging.getLogger(__name__)

#: Tiles that a device holds beyond those that its workers do: a gateway keeps few in flight
#: (workers + 2, 16 at most), so this is room for several gateways.
AHEAD: Final = 14
#: Seconds that running tiles get to end when the agent leaves.
LEAVE_S: Final = 10.0
#: Seconds between two complaints that there is no broker.
NAG_S: Final = 10.0
#: Seconds until we speak again where the link was there but did not take what we said.
RETRY_S: Final = 0.05

Connect = Callable[[Deliver, Will], Transport]


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent runs with."""

    id: str
    workers: int
    #: For messages to people only: the transport knows where it connects to.
    url: str = ""
    topics: Topics = field(default_factory=Topics)
    qos: int = 1
    checkin_s: float = 5.0
    #: What operators may take in one worker; 0 for whatever there is.
    worker_memory_mb: int = 0
    #: No larger tile is taken, halo included; 0 for any.
    max_tile_pixels: int = 0
    #: What one worker may do; None for as much as it can.
    pace: Throttle | None = None


Employ = Callable[[AgentSettings, Callable[[Finished[Key]], None]], Pool[Key]]


def processes(settings: AgentSettings, finished: Callable[[Finished[Key]], None]) -> Pool[Key]:
    """The workers of an agent with these settings."""
    return Pool(
        settings.workers,
        finished,
        memory_mb=settings.worker_memory_mb,
        pace=settings.pace,
    )


@dataclass(frozen=True, slots=True)
class _Stop:
    """Leave; from a signal handler or another thread."""


class Agent:
    """One device. Make it, `run` it on one thread, `stop` it from anywhere."""

    def __init__(
        self,
        settings: AgentSettings,
        connect: Connect,
        pool: Employ = processes,
        examiner: Callable[
            [Callable[[ConformanceReport], None]], ConformanceRunner
        ] = ConformanceRunner,
    ) -> None:
        self._settings = settings
        self._began = time.monotonic()
        self._inbox: SimpleQueue[object] = SimpleQueue()
        topics, device = settings.topics, settings.id
        self._voice = PresencePublisher(device, topics, settings.workers, settings.max_tile_pixels)
        self._transport = connect(self._inbox.put, self._voice.will)
        self._tiles = topics.device(device, "tiles")
        self._control = topics.device(device, "control")
        self._info = topics.device(device, "info")
        for topic in (self._tiles, self._control, self._info):
            self._transport.subscribe(topic, qos=settings.qos)
        self._answers = ResultPublisher(self._transport, topics, device, settings.qos)
        self._intake = TaskDecoder(settings.max_tile_pixels)
        self._controls: Decoder[Control] = Decoder(Cancel, Drain, Warm)
        self._infos = Decoder(DeviceInfo)
        self._worklist: DeviceQueue[TileLease] = DeviceQueue(settings.workers + AHEAD)
        self._pool = pool(settings, self._inbox.put)
        self._examiner = examiner(self._inbox.put)
        self._rivals = DuplicateIdCheck(self._voice.boot)
        self._complaints = CountedWarnings()
        self._linked = False
        self._was_online = False
        self._announced = False
        self._is_examined = False
        #: A gateway has said that tiles may come.
        self._wanted = False
        self._done = 0
        self._checkin_at = float("inf")
        self._nag_at = self._began
        self._leave_by = float("inf")

    @property
    def complaints(self) -> dict[str, int]:
        """How many messages were refused, by reason."""
        return dict(self._complaints.counts)

    def stop(self) -> None:
        """Finish what is running, hand the rest back, and leave. Any thread, signal handlers."""
        self._inbox.put(_Stop())

    def run(self) -> None:
        """Work until stopped or drained.

        Raises NoBroker where the broker refuses us for good before it ever took us, and
        DuplicateId where an older agent is alive under our id.
        """
        known = self._examiner.cached()
        if known is None:
            self._examiner.start()
        else:
            self._examined(known)
        self._transport.start()
        try:
            while not self._may_leave():
                self._step()
            self._leave()
        finally:
            self._examiner.close()
            self._pool.close()
            self._transport.close()

    def _step(self) -> None:
        due = min(self._checkin_at, self._leave_by)
        timeout = None if due == float("inf") else max(0.0, due - time.monotonic())
        try:
            item = self._inbox.get(timeout=timeout)
        except Empty:
            pass
        else:
            self._handle(item)
        if time.monotonic() >= self._checkin_at:
            self._check_in()

    def _handle(self, item: object) -> None:
        match item:
            case Received(topic, payload, retained):
                self._received(topic, payload, retained)
            case Finished():
                self._finished(item)
            case ConformanceReport():
                self._examined(item)
                if self._linked:
                    self._check_in()
            case Connected():
                self._connected()
            case Disconnected(reason, taken_over):
                self._disconnected(reason, taken_over)
            case Refused(reason, final):
                self._refused(reason, final)
            case _Stop():
                self._drain()
            case _:
                raise TypeError(f"nobody knows what to do with {item!r}")

    # The link.

    def _connected(self) -> None:
        self._linked = True
        self._announce()
        self._answers.connected(time.monotonic())
        settings = self._settings
        log.info(
            "%s is online at %s, %d worker(s), %d operators",
            settings.id,
            settings.url,
            settings.workers,
            len(self._voice.operators),
        )
        self._was_online = True

    def _disconnected(self, reason: str, taken_over: bool) -> None:
        self._linked = False
        self._checkin_at = float("inf")
        if taken_over:
            reason = f"another agent connected under the id {self._settings.id!r}"
        log.warning("lost the broker at %s: %s; trying again", self._settings.url, reason)

    def _refused(self, reason: str, final: bool) -> None:
        if final and not self._was_online:
            raise NoBroker(reason)
        now = time.monotonic()
        if now < self._nag_at:
            return
        self._nag_at = now + NAG_S
        hint = ""
        if not self._was_online and not final and "nothing listens" in reason:
            hint = "; start one with `mosquitto -c broker/mosquitto.conf` or fog-gateway"
        log.warning("no broker at %s (%s): trying again%s", self._settings.url, reason, hint)

    def _examined(self, found: ConformanceReport) -> None:
        self._voice.examined(found)
        # No worker may die of one plug-in's import when it is asked for another's operator.
        registry.plug_in([module for module in registry.plug_ins() if module not in found.fatal])
        for problem in found.problems:
            log.warning("%s", one_line(problem))
        self._is_examined = True
        if self._wanted:
            self._pool.warm()

    def _announce(self) -> None:
        self._announced = False
        self._check_in()

    def _check_in(self) -> None:
        """Info first, then `online`: whoever sees us online can read who we are."""
        now = time.monotonic()
        said = self._voice.check_in(
            self._transport,
            now - self._began,
            held=self._worklist.held,
            done=self._done,
            draining=self._worklist.draining,
        )
        if said and not self._announced:
            said = self._announced = self._voice.online(self._transport)
        if self._linked:
            self._checkin_at = now + (self._settings.checkin_s if said else RETRY_S)

    # What others say.

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        try:
            if topic == self._info:
                self._read_info(payload)
            elif retained:
                self._complain("retained", f"a retained message on {topic}; tasks never are")
            elif topic == self._tiles:
                self._read_tile(payload)
            elif topic == self._control:
                self._read_control(payload)
        except WireError as problem:
            self._complain(f"not for {topic.rpartition('/')[2]}", str(problem))

    def _read_tile(self, payload: bytes) -> None:
        read = self._intake.read(payload, time.monotonic())
        match read:
            case TileLease():
                self._offer(read, len(payload))
            case Unfit(reason, text, address):
                self._complain(reason, text)
                if address is not None:
                    self._answers.fail(address, text)

    def _offer(self, held: TileLease, nbytes: int) -> None:
        to = held.address
        match self._worklist.offer(held.key, to.attempt, held, nbytes, held.task.priority):
            case QueueEntry.TAKEN:
                self._answers.accept(to)
                self._assign()
            case QueueEntry.HELD:
                self._answers.accept(to)
                self._pool.renew(held.key, to.until)
            case QueueEntry.FULL:
                self._answers.hand_back(to, f"{self._settings.id} is full")
            case QueueEntry.DRAINING:
                self._answers.hand_back(to, f"{self._settings.id} is leaving")
            case QueueEntry.OVER:
                log.debug("%s tile %d/%d came again", to.job, to.tile, to.attempt)

    def _read_control(self, payload: bytes) -> None:
        match self._controls.decode(payload):
            case Cancel(job=job, tile=tile, attempt=attempt, gateway=gateway, expired=expired):
                key = Key(gateway, job, tile)
                if self._worklist.cancel(key, attempt, expired=expired):
                    self._pool.cancel(key)
                    log.debug("%s tile %d/%d is no longer wanted", job, tile, attempt)
            case Drain():
                log.info("told to leave")
                self._drain()
            case Warm():
                self._warm()

    def _read_info(self, payload: bytes) -> None:
        if not payload:
            return  # somebody cleared the topic; the next check-in fills it
        info = self._infos.decode(payload)
        if info.boot == self._voice.boot:
            self._rivals.announced()
        if not self._rivals.is_rival(info.boot):
            return
        if self._rivals.must_leave(info.boot, info.uptime_s, time.monotonic() - self._began):
            raise DuplicateId(
                f"another agent (host {info.host or 'unknown'}, up {info.uptime_s:.0f} s) is "
                f"already running under the id {self._settings.id!r}; give this one another --id"
            )
        self._complain("rival", f"another agent (host {info.host}) came under our id; we stay")
        self._announce()

    def _complain(self, reason: str, text: str) -> None:
        self._complaints.add(reason, text, time.monotonic())

    # Work.

    def _warm(self) -> None:
        self._wanted = True
        if self._is_examined:  # before that nobody knows which plug-ins end a process
            self._pool.warm()

    def _assign(self) -> None:
        while self._worklist.running < self._pool.size:
            held = self._worklist.take()
            if held is None:
                return
            self._pool.give(
                held.key, held.task, received_at=held.received_at, until=held.address.until
            )

    def _finished(self, done: Finished[Key]) -> None:
        if isinstance(done.outcome, Dropped):
            self._worklist.give_up(done.key)
            self._assign()
            return
        held = self._worklist.finish(done.key)
        self._assign()
        self._done += 1
        if held is not None:
            self._answers.finish(held.address, done)

    def _drain(self) -> None:
        if self._worklist.draining:
            return
        self._leave_by = time.monotonic() + LEAVE_S
        self._hand_back(self._worklist.drain())
        self._check_in()

    def _hand_back(self, tiles: list[TileLease]) -> None:
        for held in tiles:
            self._answers.hand_back(held.address, f"{self._settings.id} is leaving")

    def _may_leave(self) -> bool:
        if not self._worklist.draining:
            return False
        return self._worklist.running == 0 or time.monotonic() >= self._leave_by

    def _leave(self) -> None:
        self._hand_back(self._worklist.abandon())
        self._voice.offline(self._transport)
        log.info("%s leaves, %d tile(s) done", self._settings.id, self._done)
