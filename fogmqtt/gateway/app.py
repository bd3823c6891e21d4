"""The gateway: builds its parts, runs them in one event loop, and is their only interface.

    async with Gateway(config, "mariem", connect) as gateway:
        handle = gateway.submit(JobRequest("photo", "gray | canny", path=Path("photo.png")))
        outcome = await handle.outcome()

Callers use `Gateway` and none of its parts. Callers in other threads use
`fogmqtt.gateway.thread_door`.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from fogmqtt.config import GatewayConfig
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.core.duplicate_id import DuplicateIdCheck
from fogmqtt.core.scheduling.events import BrokerLost
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.errors import DuplicateId, NoBroker, WireError
from fogmqtt.gateway.background import BackgroundTasks, Supervisor
from fogmqtt.gateway.broker_health import DROPPED, DropCounter
from fogmqtt.gateway.broker_link import BrokerLink, Connect
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.devices.links import DeviceLinks
from fogmqtt.gateway.devices.registry import DeviceRegistry, DeviceView
from fogmqtt.gateway.devices.settling import Settling
from fogmqtt.gateway.devices.status_publisher import (
    State,
    StatusPublisher,
    gateway_will,
    job_status,
)
from fogmqtt.gateway.events import (
    QUEUE_LENGTH,
    BrokerChanged,
    EventBus,
    EventSubscription,
    GatewayEvent,
    follow,
)
from fogmqtt.gateway.execution.cost_model import CostModel
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.execution.local_device import LocalDevice
from fogmqtt.gateway.execution.local_workers import LocalWorkers
from fogmqtt.gateway.execution.whole_image import WholeImage
from fogmqtt.gateway.jobs.decode import Decoders
from fogmqtt.gateway.jobs.model import JobHandle, JobRequest
from fogmqtt.gateway.jobs.runner import JobRunner
from fogmqtt.gateway.threads import Threads
from fogmqtt.log import CountedWarnings, one_line
from fogmqtt.transport.base import Connected, Disconnected, Received, Refused, Unavailable
from fogmqtt.transport.link_history import LinkHistory
from fogmqtt.wire.topics import Topics, is_id

log = logging.getLogger(__name__)

#: Seconds that listeners get for the last events when the gateway stops.
_LISTENERS_S: Final = 1.0
#: The longest time between two checks for silent devices, in seconds.
_PRESENCE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Submission:
    """An image from the submit topic. Its receiver acknowledges the message."""

    pipeline: str
    reply: str
    message: Received


class Gateway:
    """Cuts images into tiles, has devices process them, merges and delivers the results.

    It is an asynchronous context manager. Inside the block it connects, and connects again after
    every loss. It raises NoBroker if the broker refuses it permanently, or if no broker answers
    within `broker_within_s`, and DuplicateId if another gateway runs with the same id. The block
    is cancelled in these cases.

    All methods belong to the event loop.

    Parameters
    ----------
    config : the configuration
    gateway_id : the id of this gateway in topics
    connect : makes the transport; its arguments are a delivery function and the will
    serves : whether images are taken from the submit topic, and the gateway's presence is retained
    broker_within_s : seconds in which a broker must answer; None means no limit
    scheduler : a scheduler for tests and measurements; None means a new one
    decoders : decode the images, and are closed with the gateway; None means new ones
    """

    def __init__(
        self,
        config: GatewayConfig,
        gateway_id: str,
        connect: Connect,
        *,
        serves: bool = False,
        broker_within_s: float | None = None,
        scheduler: Scheduler | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        self.config = config
        self.id = gateway_id
        self.topics = Topics(config.wire.prefix)
        self._serves = serves
        self._broker_within_s = broker_within_s
        self._bus = EventBus()
        self._warnings = CountedWarnings()
        self._threads = Threads()
        self._background = BackgroundTasks()
        self._submissions: asyncio.Queue[Submission] = asyncio.Queue()
        self._refusal = ""
        self._link_history = LinkHistory(gateway_id)
        boot = secrets.token_hex(8)
        self._duplicates = DuplicateIdCheck(boot)
        self._drops = DropCounter()

        self._link = BrokerLink(connect, gateway_will(gateway_id, self.topics))
        scheduler = scheduler or Scheduler(config.policy(), sends_reported=True)
        self._workers = LocalWorkers(self._threads)
        self._links = DeviceLinks()
        self._dispatcher = Dispatcher(
            scheduler,
            self._link,
            self._threads,
            self._workers,
            self._bus,
            self._warnings,
            self._links,
            gateway_id=gateway_id,
            topics=self.topics,
            wire=config.wire,
            local_allowed=config.gateway.local != "never",
        )
        self._local = LocalDevice(
            boot,
            self._dispatcher.feed,
            self._dispatcher.works_locally,
            self._workers.warm,
        )
        self._compatibility = Compatibility(exact=config.exact)
        self._registry = DeviceRegistry(
            self._dispatcher.feed,
            self._compatibility,
            self._dispatcher.warm,
            self._bus,
            self._links,
        )
        self._settling = Settling(self._link, self._compatibility, config.gateway.local_after)
        whole_image = WholeImage(
            self._threads,
            self._registry,
            self._dispatcher,
            CostModel(scheduler, platform.node()),
            allowed=config.gateway.local != "never",
        )
        self._runner = JobRunner(
            config,
            self._threads,
            self._registry,
            self._settling,
            self._dispatcher,
            whole_image,
            self._bus,
            decoders or Decoders(),
        )
        self.status = StatusPublisher(
            self._link,
            gateway_id,
            self.topics,
            config.pipelines,
            boot,
            stays=serves,
            expires=config.broker.protocol == 5,
        )
        self._conformance: ConformanceRunner | None = None
        self._supervisor: Supervisor | None = None

    # Jobs.

    def submit(self, request: JobRequest) -> JobHandle:
        """Submit a job. It begins when its turn comes."""
        return self._runner.submit(request)

    def cancel(self, job: str, reason: str = "the job was cancelled") -> bool:
        """End a job without a result. False if there is no such job, or it has ended."""
        handle = self._runner.job(job)
        if handle is None:
            return False
        handle.cancel(reason)
        return True

    def job(self, job: str) -> JobHandle | None:
        """Return a job that has not ended; None if there is no such job."""
        return self._runner.job(job)

    def jobs(self) -> tuple[JobHandle, ...]:
        """Return the jobs that have not ended, in the order in which they were submitted."""
        return self._runner.jobs()

    @property
    def waiting(self) -> int:
        """The number of jobs whose turn has not come."""
        return self._runner.queue.waiting

    def hold_jobs(self, held: bool) -> None:
        """Let no further job begin while `held` is true."""
        self._runner.queue.hold(held)

    # Devices and events.

    def devices(self) -> tuple[DeviceView, ...]:
        """Return the devices that have sent their info, in the order of their ids."""
        return self._registry.views()

    def online(self) -> tuple[str, ...]:
        """Return the ids of the devices that are online, in order."""
        return self._registry.present()

    async def settled(self) -> None:
        """Wait until the devices that are online are known, or no broker answered for long."""
        await self._settling.wait_for_backlog()

    def events(self, name: str, limit: int = QUEUE_LENGTH) -> EventSubscription:
        """Subscribe to all events from now on. `name` is the listener's name in the log."""
        return self._bus.subscribe(name, limit)

    def listen(self, name: str, handle: Callable[[GatewayEvent], object]) -> None:
        """Call `handle` for each event from now on, one at a time, in a thread.

        If it raises or does not keep up, it is not called any more, and the log names it.
        """
        subscription = self._bus.subscribe(name)
        self._background.start(follow(subscription, handle, self._threads), f"listener {name}")

    # For a server.

    @property
    def link(self) -> BrokerLink:
        """The link to the broker, for replies."""
        return self._link

    async def submissions(self) -> AsyncIterator[Submission]:
        """Yield the images that come on the submit topic, in order."""
        while True:
            yield await self._submissions.get()

    def warn(self, reason: str, text: str) -> None:
        """Log a fault of a client or device, at a bounded rate for each reason."""
        self._warnings.add(reason, text, now())

    # Starting and stopping.

    async def __aenter__(self) -> Self:
        self._supervisor = supervisor = Supervisor()
        supervisor.start(self._listen(), "messages")
        supervisor.start(self._lose_silent_devices(), "presence")
        supervisor.start(self._staff_local_device(), "local device")
        supervisor.start(self.status.follow(self._bus.subscribe("job status")), "job status")
        if self.config.broker.protocol != 5:
            supervisor.start(self.status.clear_expired(), "expired job status")
        if self._broker_within_s is not None:
            supervisor.start(self._require_broker(self._broker_within_s), "broker")
        if self.config.exact:
            self._check_conformance()
        self._subscribe()
        self._link.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._supervisor is not None  # noqa: S101  # entered
        failure = await self._supervisor.take_over()
        await self._stop()
        await self._supervisor.close()
        if failure is not None:
            raise failure

    async def _stop(self) -> None:
        """End all jobs, publish `offline`, and stop all threads and processes."""
        reports = [handle.report for handle in self.jobs()]
        await self._runner.close("the gateway is stopping")
        for report in reports:
            state: State = "waiting" if self._serves else "failed"
            self.status.job(job_status(report, state, "the gateway stopped"))
        if self._conformance is not None:
            self._conformance.close()
        await self._local.close()
        await self._dispatcher.close()
        self._bus.close()
        await self._background.finish(_LISTENERS_S)
        self.status.leave()
        # These wait for threads and processes; nothing else runs in the loop by now.
        self._link.close()
        self._workers.close()
        self._threads.close()

    def _check_conformance(self) -> None:
        """Make this machine's conformance report: devices are compared with it."""
        loop = asyncio.get_running_loop()

        def finished(report: ConformanceReport) -> None:
            with suppress(RuntimeError):  # the loop is closed: the gateway has stopped
                loop.call_soon_threadsafe(self._registry.conformance_finished, report)

        self._conformance = ConformanceRunner(finished)
        self._conformance.start()

    def _subscribe(self) -> None:
        transport, qos = self._link.transport, self.config.wire.qos
        for topic_filter in (
            self.topics.device("+", "status"),
            self.topics.device("+", "info"),
            self.topics.results(self.id, "+"),
            self.topics.gateway(self.id, "info"),
        ):
            transport.subscribe(topic_filter, qos=qos)
        if self._serves:
            # Shared among gateways, so that each image is done once. MQTT 3.1.1 has no sharing.
            shared = "$share/gateways/" if self.config.broker.protocol == 5 else ""
            transport.subscribe(f"{shared}{self.topics.submit()}", manual_ack=True)
        transport.subscribe(DROPPED, qos=qos, optional=True)

    async def _require_broker(self, within_s: float) -> None:
        """Raise NoBroker if no broker has answered in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._link.up()
        except TimeoutError:
            reason = self._refusal or f"no broker answered at {self.config.broker.url}"
            raise NoBroker(
                f"{reason} (tried for {within_s:g} s; `mosquitto -c broker/mosquitto.conf` starts "
                "one, and for this machine so does broker.embedded: auto)"
            ) from None

    async def _lose_silent_devices(self) -> None:
        """Lose devices that have been silent for too long."""
        while True:
            wakeup = self._registry.tick(now())
            wait_s = _PRESENCE_S if wakeup is None else wakeup - now()
            await asyncio.sleep(min(max(0.01, wait_s), _PRESENCE_S))

    async def _staff_local_device(self) -> None:
        """Let the gateway's own cores join and leave, by the configuration and the jobs."""
        mode = self.config.gateway.local
        if mode == "always":
            self._local.join()
        changed = self._dispatcher.changed
        while True:
            await changed.wait()
            changed.clear()
            stages = self._dispatcher.stages
            for stage in stages:
                self._local.offer(stage.needs)
            if mode == "auto":
                starved = any(stage.starved for stage in stages)
                # The cores help a fleet with long stages. Without a fleet they help starved stages.
                is_long = any(stage.helped for stage in stages)
                has_fleet = is_long and bool(self._dispatcher.ready_devices())
                self._local.update(wanted=starved or has_fleet)

    # Items from the broker.

    async def _listen(self) -> None:
        async for item in self._link.items():
            match item:
                case Received():
                    self._received(item)
                case Connected(url=url):
                    self._connected(url or self.config.broker.url)
                case Disconnected(reason):
                    self._disconnected(reason)
                case Refused(reason, final):
                    self._refused(reason, final)
                case Unavailable(reason=reason):
                    self._drops.unavailable(reason)
                case _:
                    raise TypeError(f"the transport delivered an unknown item: {item!r}")

    def _received(self, message: Received) -> None:
        try:
            self._dispatch(message)
        except WireError as problem:
            self.warn("invalid message", f"{message.topic[:120]}: {problem}")

    def _dispatch(self, message: Received) -> None:
        """Pass a message to the part for its topic. Raises WireError."""
        if message.topic == DROPPED:
            dropped = self._drops.increase(bytes(message.payload))
            for handle in self.jobs():
                handle.report.dropped += dropped
            return
        payload, retained = message.payload, message.retained
        match self.topics.levels(message.topic):
            case ("devices", device, ("status" | "info") as leaf) if is_id(device):
                if retained:
                    self._settling.topic_came()
                self._registry.received(device, leaf, payload, retained, now())
            case ("gateways", _, "results", device) if is_id(device) and not retained:
                self._registry.note_message(device, now())
                self._dispatcher.received(device, payload, message.at)
            case ("gateways", self.id, "info"):
                self._check_duplicate(payload)
            case ("submit", pipeline, reply) if self._serves:
                self._submissions.put_nowait(Submission(pipeline, reply, message))
            case _:
                raise WireError("unexpected topic" + (" of a retained message" if retained else ""))

    def _connected(self, url: str) -> None:
        self._settling.connected()
        self._link_history.connected(now())
        log.info("%s is online at %s", self.id, url)
        self.status.introduce()
        self._bus.emit(BrokerChanged(connected=True))

    def _disconnected(self, reason: str) -> None:
        reason = self._link_history.lost(reason, now())
        log.warning("lost the broker at %s: %s; trying again", self.config.broker.url, reason)
        self._registry.broker_lost()
        self._links.broker_lost()
        self._dispatcher.feed(BrokerLost())
        if self._local.working:
            self._local.join()
        self._bus.emit(BrokerChanged(connected=False))

    def _refused(self, reason: str, final: bool) -> None:
        """Keep the broker's reason. Raises NoBroker if another try cannot succeed."""
        if final and not self._link.connections:
            raise NoBroker(reason)
        self._refusal = reason
        if self._link_history.is_due(now()):
            log.warning("no link: %s; trying again", reason)

    def _check_duplicate(self, payload: bytes | memoryview) -> None:
        """Raise DuplicateId if another gateway with our id was online before us."""
        if not payload:
            return  # somebody cleared the topic
        info, duplicates, uptime_s = (
            self.status.read(payload),
            self._duplicates,
            self.status.uptime_s,
        )
        if info.boot == self.status.boot:
            duplicates.own_info_seen()  # later messages were published after ours
            self._settling.own_info_came()
        if duplicates.must_exit(info.boot, info.uptime_s, uptime_s):
            raise DuplicateId(
                f"another gateway (host {one_line(info.host) or 'unknown'}) is already running "
                f"under the id {self.id!r}; give this one another gateway.id"
            )
        if duplicates.is_duplicate(info.boot):
            self.status.introduce()
