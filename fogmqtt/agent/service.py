"""The agent of a device: accepts tiles, runs them in workers, replies, and publishes its presence.

One thread, the one inside `run`, owns all state. The transport's thread and the workers only put
events into the inbox, so there are no locks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from fogmqtt.agent.memory_workers import MemoryWorkers
from fogmqtt.agent.presence_publisher import PresencePublisher
from fogmqtt.agent.result_publisher import ResultPublisher
from fogmqtt.agent.task_decoder import InvalidTask, TaskDecoder
from fogmqtt.agent.tile_lease import TileLease
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.core.device_queue import DeviceQueue, OfferResult, TileKey
from fogmqtt.core.duplicate_id import DuplicateIdCheck
from fogmqtt.errors import DuplicateId, NoBroker, Revoked, WireError
from fogmqtt.log import CountedWarnings, one_line
from fogmqtt.operators.api import registry
from fogmqtt.transport.base import (
    Connected,
    Deliver,
    Disconnected,
    Published,
    Received,
    Refused,
    Transport,
    Will,
)
from fogmqtt.transport.link_history import LinkHistory
from fogmqtt.wire.messages import (
    Cancel,
    Control,
    Decoder,
    DeviceInfo,
    Drain,
    UpdateBoard,
    UpdateReport,
    Warm,
)
from fogmqtt.wire.topics import ONLINE, Topics
from fogmqtt.workers.pool import Pool
from fogmqtt.workers.resources import has_memory_for_workers
from fogmqtt.workers.throttle import Throttle
from fogmqtt.workers.trusted import TrustedTiles
from fogmqtt.workers.work import TileOutput, WorkCancelled, WorkFinished

log = logging.getLogger(__name__)

#: The number of tiles that a device queues beyond those that its workers run. A gateway keeps few
#: in flight (workers + 2, 16 at most), so this suffices for several gateways.
QUEUE_AHEAD: Final = 14
#: Seconds that running tiles may take after the start of draining.
DRAIN_TIMEOUT_S: Final = 10.0
#: Seconds after a device is online and checked until it starts its workers' processes, if it has
#: memory to spare. So a start is not slower for them, and a first job does not wait for them.
PREPARE_AFTER_S: Final = 0.5
#: This many threads that never return end the agent, or as many as it has workers: each may keep a
#: core busy, and only the end of the process ends them.
MAX_HANGING: Final = 2
#: Seconds after a check-in until its echo is missed. The agent subscribes to its own info, and
#: MQTT 3.1.1 has no other way to tell that the broker drops what it publishes.
ECHO_S: Final = 6.0
#: Seconds until the next check-in if the transport connected but did not accept the last one.
CHECKIN_RETRY_S: Final = 0.05

Connect = Callable[[Deliver, Will], Transport]


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The settings of an agent."""

    id: str
    workers: int
    #: The brokers' urls for log messages. The transport has the real ones.
    urls: tuple[str, ...] = ()
    #: The user whose password the transport has; empty for none.
    user: str = ""
    topics: Topics = field(default_factory=Topics)
    qos: int = 1
    checkin_s: float = 5.0
    #: The memory limit for the operators in each worker, in MB; 0 means no limit.
    worker_memory_mb: int = 0
    #: The largest accepted tile in pixels with its halo; 0 means any size.
    max_tile_pixels: int = 0
    #: The emulated speed of each worker; None means full speed.
    throttle: Throttle | None = None
    #: Run every tile in a process. Otherwise trusted tiles run in threads of the agent.
    isolates_all: bool = False


class PushingCamera(Protocol):
    """The camera of a device: `agent.camera`, which only devices with a camera load."""

    wanted_topic: str
    #: The token of its messages.
    token: object

    @property
    def due_at(self) -> float:
        """When to call `step`, in monotonic seconds."""

    def step(self, now: float) -> None: ...
    def wanted(self, payload: bytes | memoryview) -> None: ...
    def sent(self) -> None: ...
    def close(self) -> None: ...


class Updater(Protocol):
    """Puts another version of fogmqtt beside this one; a launcher starts it."""

    @property
    def last(self) -> UpdateReport | None:
        """Why the last update was taken back, if it was."""

    def begin(self, version: str) -> bool:
        """Begin an update, unless one goes on; return whether it has begun."""

    def online(self) -> None: ...


#: Has the agent's thread call something.
CallSoon = Callable[[Callable[[], None]], None]
CameraFactory = Callable[[Transport, CallSoon], PushingCamera]
PoolFactory = Callable[[AgentSettings, Callable[[WorkFinished[TileKey]], None]], Pool[TileKey]]
#: What an updater reports comes from threads of its own.
UpdaterFactory = Callable[[Callable[[UpdateReport], None]], Updater]
RunnerFactory = Callable[[Callable[[ConformanceReport], None]], ConformanceRunner]


def make_pool(
    settings: AgentSettings, finished: Callable[[WorkFinished[TileKey]], None]
) -> Pool[TileKey]:
    """Return the workers of an agent with these settings."""
    trusted = None if settings.isolates_all else TrustedTiles(settings.worker_memory_mb)
    return Pool(
        settings.workers,
        finished,
        memory_mb=settings.worker_memory_mb,
        throttle=settings.throttle,
        trusted=trusted,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """What the thread of the camera has the agent's thread do."""

    function: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Stop:
    """Drain and exit. A signal handler or another thread puts it into the inbox."""


class Agent:
    """One device. Call `run` on one thread; any thread may call `stop`."""

    def __init__(
        self,
        settings: AgentSettings,
        connect: Connect,
        make_pool: PoolFactory = make_pool,
        make_conformance_runner: RunnerFactory = ConformanceRunner,
        make_camera: CameraFactory | None = None,
        make_updater: UpdaterFactory | None = None,
    ) -> None:
        self._settings = settings
        self._started_at = time.monotonic()
        self._inbox: SimpleQueue[object] = SimpleQueue()
        topics, device = settings.topics, settings.id
        throttle = settings.throttle
        self._presence = PresencePublisher(
            device,
            topics,
            settings.workers,
            settings.max_tile_pixels,
            None if throttle is None else throttle.speed,
        )
        self._transport = connect(self._deliver, self._presence.will)
        self._tiles_topic = topics.device(device, "tiles")
        self._control_topic = topics.device(device, "control")
        self._info_topic = topics.device(device, "info")
        for topic in (self._tiles_topic, self._control_topic, self._info_topic):
            self._transport.subscribe(topic, qos=settings.qos)
        self._camera: PushingCamera | None = None
        if make_camera is not None:
            self._camera = make_camera(self._transport, lambda call: self._inbox.put(_Call(call)))
        if self._camera is not None:
            self._transport.subscribe(self._camera.wanted_topic, qos=settings.qos, optional=True)
        self._updater = None if make_updater is None else make_updater(self._inbox.put)
        if self._updater is not None:
            self._presence.updates, self._presence.update = True, self._updater.last
        self._results = ResultPublisher(self._transport, topics, device, settings.qos)
        self._task_decoder = TaskDecoder(settings.max_tile_pixels)
        self._control_decoder: Decoder[Control] = Decoder(Cancel, Drain, UpdateBoard, Warm)
        self._info_decoder = Decoder(DeviceInfo)
        self._queue: DeviceQueue[TileLease] = DeviceQueue(settings.workers + QUEUE_AHEAD)
        self._pool = make_pool(settings, self._inbox.put)
        self._memory_workers = MemoryWorkers(settings.workers)
        self._conformance_runner = make_conformance_runner(self._inbox.put)
        self._duplicate_check = DuplicateIdCheck(self._presence.boot)
        self._warnings = CountedWarnings()
        #: The broker that is used, or those that are tried.
        self._broker = ", ".join(settings.urls)
        self._next_try = "the next one" if len(settings.urls) > 1 else "again"
        self._is_connected = False
        self._was_connected = False
        #: The broker has taken the status `online` once.
        self._was_visible = False
        #: The agent has read an info of its own.
        self._was_seen = False
        #: The status `online` was published on this connection.
        self._is_online = False
        self._has_conformance = False
        #: Problems of the conformance run that are logged.
        self._problems: list[str] = []
        #: When to start the processes of the workers.
        self._prepare_at = float("inf")
        #: A gateway asked for warm workers.
        self._is_warm_requested = False
        #: The threads of this process that hang, as the log says.
        self._hanging = 0
        #: `run` returned because too many of them hang, and not because it was told to.
        self.must_restart = False
        #: `run` returned so that another version of this program takes its place.
        self.is_updated = False
        self._tiles_done = 0
        self._checkin_at = float("inf")
        #: When to tell that the broker does not pass on what this agent publishes.
        self._echo_missed_at = float("inf")
        self._link_history = LinkHistory(topics.client_id("device", device))
        self._drain_deadline = float("inf")

    @property
    def warning_counts(self) -> dict[str, int]:
        """The number of refused messages by reason."""
        return dict(self._warnings.counts)

    def _deliver(self, event: object) -> None:
        """Take an event of the transport, on its thread."""
        if isinstance(event, Published) and self._results.confirmed(event.token):
            return  # the broker has a result, for which the agent's thread need not wake up
        self._inbox.put(event)

    def stop(self) -> None:
        """Finish the running tiles, reject the others, and exit. Safe in signal handlers."""
        self._inbox.put(_Stop())

    def run(self) -> None:
        """Run until the agent is stopped or drained, or must be restarted.

        Raises NoBroker if the broker refuses the first connection, or the device's status, for
        good, DuplicateId if an older agent runs under the same id, and Revoked.
        """
        report = self._conformance_runner.cached()
        if report is None:
            self._conformance_runner.start()
        else:
            self._conformance_known(report)
        self._transport.start()
        try:
            while not self._is_drained() and not self.must_restart:
                self._step()
            if self.must_restart:
                self._refuse_all()
            self._shut_down()
        finally:
            self._conformance_runner.close()
            self._pool.close()
            if self._camera is not None:
                self._camera.close()
            self._transport.close()

    def _step(self) -> None:
        due = min(
            self._checkin_at,
            self._echo_missed_at,
            self._drain_deadline,
            self._prepare_at,
            self._look_for_hangs(),
            float("inf") if self._camera is None else self._camera.due_at,
        )
        timeout = None if due == float("inf") else max(0.0, due - time.monotonic())
        try:
            event = self._inbox.get(timeout=timeout)
        except Empty:
            pass
        else:
            self._handle(event)
        if time.monotonic() >= self._checkin_at:
            self._check_in()
        if time.monotonic() >= self._echo_missed_at:
            self._echo_missed()
        if time.monotonic() >= self._prepare_at:
            self._prepare_at = float("inf")
            if has_memory_for_workers(self._settings.workers):
                self._pool.prepare()
        if self._camera is not None:
            self._camera.step(time.monotonic())

    def _handle(self, event: object) -> None:
        match event:
            case Received(topic, payload, retained):
                self._received(topic, payload, retained)
            case WorkFinished():
                self._work_finished(event)
            case ConformanceReport():
                self._conformance_known(event)
                if self._is_connected:
                    self._check_in()
            case Connected(max_packet_bytes, url):
                self._connected(max_packet_bytes, url or self._broker)
            case Disconnected(reason, taken_over):
                self._disconnected(reason, taken_over)
            case Refused(reason, revoked=True):
                raise Revoked(reason)
            case Refused(reason, final):
                self._refused(reason, final)
            case Published(token, refusal):
                self._published(token, refusal)
            case UpdateReport():
                self._update_goes_on(event)
            case _Stop():
                self._drain()
            case _Call(function):
                function()
            case _:
                raise TypeError(f"the agent has no handler for the event {event!r}")

    # --- connection and presence ----------------------------------------------------------

    def _connected(self, max_packet_bytes: int | None, url: str) -> None:
        self._is_connected = True
        self._broker = url
        self._link_history.connected(time.monotonic())
        # Before it is online: a gateway sends the tiles that it misses to a device that comes back.
        self._results.connected(time.monotonic(), max_packet_bytes)
        self._announce()
        self._echo_missed_at = time.monotonic() + ECHO_S
        if not self._was_connected:
            self._plan_preparation()
        settings = self._settings
        log.info(
            "%s is online at %s, %d worker(s), %d operators",
            settings.id,
            url,
            settings.workers,
            len(self._presence.operators),
        )
        self._was_connected = True

    def _disconnected(self, reason: str, taken_over: bool) -> None:
        self._is_connected = False
        self._duplicate_check.link_lost()
        self._results.disconnected()
        self._checkin_at = self._echo_missed_at = float("inf")
        reason = self._link_history.lost(reason, time.monotonic())
        if taken_over:
            reason = f"another agent connected under the id {self._settings.id!r}"
        log.warning("lost the broker at %s: %s; trying %s", self._broker, reason, self._next_try)

    def _refused(self, reason: str, final: bool) -> None:
        if final and not self._was_connected:
            raise NoBroker(reason)
        if not self._link_history.is_due(time.monotonic()):
            return
        hint = ""
        if not self._was_connected and not final and "nothing listens" in reason:
            hint = "; start one with `mosquitto -c broker/mosquitto.conf` or fog-gateway"
        log.warning("no broker at %s (%s): trying %s%s", self._broker, reason, self._next_try, hint)

    def _published(self, token: object, refusal: str) -> None:
        if token == ONLINE:
            self._status_answered(refusal)
        elif self._camera is not None and token == self._camera.token:
            self._camera.sent()

    def _status_answered(self, refusal: str) -> None:
        """Tell if no gateway can see this device. Raises NoBroker if none ever could."""
        settings = self._settings
        if not refusal:
            self._was_visible = True
            return
        text = f"{self._broker} takes no messages from {settings.id}: {refusal}{self._advice()}"
        if not self._was_visible:
            raise NoBroker(text)
        self._warn("refused", text)

    def _echo_missed(self) -> None:
        self._echo_missed_at = float("inf")
        log.warning(
            "%s does not pass on what %s publishes, so no gateway finds it: the broker's acl may "
            "forbid it%s",
            self._broker,
            self._settings.id,
            self._advice(),
        )

    def _advice(self) -> str:
        """Return what a device with another user's password should do; empty for others."""
        settings = self._settings
        if not settings.user or settings.user == settings.id:
            return ""
        return (
            f"; this device connected as user {settings.user!r}, and the access list gives "
            f"each user the topics of its own name: set broker.username and broker.password to "
            f"those of {settings.id!r} (broker/add-user.sh device {settings.id})"
        )

    def _conformance_known(self, report: ConformanceReport) -> None:
        """Take a report of the conformance run; the first one may lack most operators."""
        self._presence.set_conformance(report)
        # A plug-in whose import ends the process must not end workers that run other operators.
        registry.plug_in([module for module in registry.plug_ins() if module not in report.fatal])
        for problem in report.problems:
            if problem not in self._problems:
                log.warning("%s", one_line(problem))
        self._problems = report.problems
        self._pool.learn(report.fingerprints, report.rates)
        is_first, self._has_conformance = not self._has_conformance, True
        if is_first and self._is_warm_requested:
            self._pool.warm()
        if is_first:
            self._plan_preparation()

    def _plan_preparation(self) -> None:
        if self._is_connected and self._has_conformance:
            self._prepare_at = time.monotonic() + PREPARE_AFTER_S

    def _announce(self) -> None:
        self._is_online = False
        self._check_in()

    def _check_in(self) -> None:
        """Publish the info and then `online`, so that whoever reads `online` finds the info."""
        now = time.monotonic()
        is_published = self._presence.check_in(
            self._transport,
            now - self._started_at,
            held=self._queue.tiles_held,
            done=self._tiles_done,
            draining=self._queue.draining,
        )
        if is_published and not self._is_online:
            is_published = self._is_online = self._presence.publish_online(self._transport)
        if self._is_connected:
            self._checkin_at = now + (self._settings.checkin_s if is_published else CHECKIN_RETRY_S)

    # --- messages -------------------------------------------------------------------------

    def _received(self, topic: str, payload: bytes | memoryview, retained: bool) -> None:
        try:
            if topic == self._info_topic:
                self._info_received(payload)
            elif retained:
                self._warn("retained", f"a retained message on {topic} is refused")
            elif topic == self._tiles_topic:
                self._tile_received(payload)
            elif topic == self._control_topic:
                self._control_received(payload)
            elif self._camera is not None and topic == self._camera.wanted_topic:
                self._camera.wanted(payload)
        except WireError as problem:
            self._warn(f"not for {topic.rpartition('/')[2]}", str(problem))

    def _tile_received(self, payload: bytes | memoryview) -> None:
        decoded = self._task_decoder.decode(payload, time.monotonic())
        match decoded:
            case TileLease():
                self._offer(decoded, len(payload))
            case InvalidTask(reason, text, address):
                self._warn(reason, text)
                if address is not None:
                    self._results.fail(address, text)

    def _offer(self, lease: TileLease, nbytes: int) -> None:
        to = lease.address
        task = lease.task
        match self._queue.offer(
            lease.key, to.attempt, lease, nbytes, task.priority, lease.deadline
        ):
            case OfferResult.ACCEPTED:
                self._results.accept(to)
                self._start_tiles()
            case OfferResult.ALREADY_HELD:
                self._results.accept(to)
                self._pool.renew(lease.key, to.expires_at)
            case OfferResult.FULL:
                self._results.reject(to, f"{self._settings.id} is full")
            case OfferResult.DRAINING:
                self._results.reject(to, f"{self._settings.id} is draining")
            case OfferResult.ALREADY_ENDED:
                log.debug("%s tile %d/%d arrived again", to.job, to.tile, to.attempt)

    def _control_received(self, payload: bytes | memoryview) -> None:
        match self._control_decoder.decode(payload):
            case Cancel(job=job, tile=tile, attempt=attempt, gateway=gateway, expired=expired):
                key = TileKey(gateway, job, tile)
                if self._queue.cancel(key, attempt, expired=expired):
                    self._pool.cancel(key)
                    log.debug("%s tile %d/%d is cancelled", job, tile, attempt)
            case Drain():
                log.info("a drain message arrived")
                self._drain()
            case UpdateBoard(version=version):
                self._update(version)
            case Warm():
                self._is_warm_requested = True
                if self._has_conformance:  # the report names the plug-ins that end a process
                    self._pool.warm()

    def _info_received(self, payload: bytes | memoryview) -> None:
        if not payload:
            return  # another client cleared the topic; the next check-in fills it
        info = self._info_decoder.decode(payload)
        if info.boot == self._presence.boot:
            self._echo_missed_at = float("inf")
            self._duplicate_check.own_info_seen()
            self._seen_online()
        if not self._duplicate_check.is_duplicate(info.boot):
            return
        uptime_s = time.monotonic() - self._started_at
        if self._duplicate_check.must_exit(info.boot, info.uptime_s, uptime_s):
            raise DuplicateId(
                f"another agent (host {one_line(info.host) or 'unknown'}, "
                f"up {info.uptime_s:.0f} s) is already running under the id "
                f"{self._settings.id!r}; give this one another --id"
            )
        self._warn(
            "duplicate id",
            f"another agent (host {info.host}) started under the id {self._settings.id!r}; "
            "this one stays",
        )
        self._announce()

    # --- updates --------------------------------------------------------------------------

    def _update(self, version: str) -> None:
        if self._updater is None:
            self._warn("update", "this board was not installed by join.sh, so it is updated there")
        elif self._updater.begin(version):
            log.info("a gateway updates this board to fogmqtt %s", version)
        else:
            self._warn("update", "an update goes on, so another one is not begun")

    def _update_goes_on(self, report: UpdateReport) -> None:
        self._presence.update = report
        if report.reason:
            log.warning("the update to %s failed: %s", report.version, one_line(report.reason))
        if self._is_connected:
            self._check_in()
        if report.state == "starting":
            log.info("fogmqtt %s is installed and takes over", report.version)
            self.is_updated = True
            self._drain()

    def _seen_online(self) -> None:
        """Let a new version be kept: the broker passes on what it publishes."""
        if self._updater is not None and not self._was_seen:
            self._updater.online()
        self._was_seen = True

    def _warn(self, reason: str, text: str) -> None:
        self._warnings.add(reason, text, time.monotonic())

    # --- work -----------------------------------------------------------------------------

    def _start_tiles(self) -> None:
        while self._queue.tiles_running < self._pool.size:
            lease = self._queue.take(self._can_start)
            if lease is None:
                return
            if lease.is_overdue(time.monotonic()):
                self._queue.finish(lease.key)
                self._overdue(lease)
                continue
            self._pool.start(
                lease.key,
                lease.task,
                received_at=lease.received_at,
                deadline=lease.address.expires_at,
                number=self._memory_workers.worker(lease),
            )

    def _can_start(self, lease: TileLease) -> bool:
        """Whether the worker that has the tile's memory is idle."""
        number = self._memory_workers.worker(lease)
        return number is None or self._pool.is_idle(number)

    def _work_finished(self, finished: WorkFinished[TileKey]) -> None:
        if isinstance(finished.outcome, WorkCancelled):
            self._queue.work_ended_early(finished.key)
            self._start_tiles()
            return
        lease = self._queue.finish(finished.key)
        self._start_tiles()
        self._tiles_done += 1
        if lease is None:
            return
        if isinstance(finished.outcome, TileOutput) and lease.is_overdue(time.monotonic()):
            self._overdue(lease)
            return
        self._results.finish(lease.address, finished)

    def _overdue(self, lease: TileLease) -> None:
        self._results.overdue(lease.address, time.monotonic() - lease.received_at)

    def _look_for_hangs(self) -> float:
        """Replace workers whose thread hangs; returns when to look again, in monotonic seconds."""
        look_at = self._pool.look(time.monotonic())
        hanging = self._pool.hanging
        if hanging > self._hanging:
            is_clogged = hanging >= max(MAX_HANGING, self._settings.workers)
            self.must_restart = is_clogged and not self._queue.draining
            log.warning(
                "%d thread(s) do not return from their tiles: other workers take their place%s",
                hanging,
                "; restarting with all tiles in processes (device.isolate: always)"
                if self.must_restart
                else "",
            )
        self._hanging = hanging
        return look_at

    def _drain(self) -> None:
        if self._queue.draining:
            return
        self._drain_deadline = time.monotonic() + DRAIN_TIMEOUT_S
        self._reject(self._queue.drain())
        self._check_in()

    def _refuse_all(self) -> None:
        """Accept no more tiles, and answer what has arrived: the failures of those that hang."""
        self._reject(self._queue.drain())
        for _ in range(self._inbox.qsize()):
            self._handle(self._inbox.get())

    def _reject(self, leases: list[TileLease]) -> None:
        for lease in leases:
            self._results.reject(lease.address, f"{self._settings.id} is draining")

    def _is_drained(self) -> bool:
        if not self._queue.draining:
            return False
        return self._queue.tiles_running == 0 or time.monotonic() >= self._drain_deadline

    def _shut_down(self) -> None:
        self._reject(self._queue.abandon())
        self._presence.publish_offline(self._transport)
        log.info("%s exits, %d tile(s) done", self._settings.id, self._tiles_done)
