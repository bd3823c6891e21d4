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
import math
import platform
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from msgspec import Struct

from fogmqtt import __version__
from fogmqtt.config import GatewayConfig, StreamSettings
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.core.duplicate_id import DuplicateIdCheck
from fogmqtt.core.scheduling.events import BrokerLost
from fogmqtt.core.scheduling.live import LiveDevice
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.errors import DuplicateId, NoBroker, NotConnected, WireError
from fogmqtt.gateway.background import BackgroundTasks, Supervisor
from fogmqtt.gateway.broker_health import DROPPED, DropCounter
from fogmqtt.gateway.broker_link import BrokerLink, Connect
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.devices.links import DeviceLinks
from fogmqtt.gateway.devices.registry import DeviceRegistry, DeviceView, Machine
from fogmqtt.gateway.devices.settling import Settling
from fogmqtt.gateway.devices.status_publisher import (
    State,
    StatusPublisher,
    gateway_will,
    job_status,
)
from fogmqtt.gateway.devices.throughput import Rates
from fogmqtt.gateway.events import (
    QUEUE_LENGTH,
    BrokerChanged,
    EventBus,
    EventSubscription,
    GatewayEvent,
    JobEnded,
    JobProgressed,
    follow,
)
from fogmqtt.gateway.execution.cost_model import CostModel
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.execution.live_stage import LiveStage
from fogmqtt.gateway.execution.local_device import LocalDevice
from fogmqtt.gateway.execution.local_workers import LocalWorkers
from fogmqtt.gateway.execution.whole_image import WholeImage
from fogmqtt.gateway.jobs.decode import Decoders
from fogmqtt.gateway.jobs.model import JobHandle, JobRequest
from fogmqtt.gateway.jobs.runner import JobRunner
from fogmqtt.gateway.metrics import Metrics, device_state
from fogmqtt.gateway.threads import Threads
from fogmqtt.images import cv
from fogmqtt.images.spec import Image
from fogmqtt.log import CountedWarnings, one_line
from fogmqtt.transport.base import Connected, Disconnected, Received, Refused, Unavailable
from fogmqtt.transport.link_history import LinkHistory
from fogmqtt.wire.service_metrics import DeviceMetrics, MetricsSnapshot
from fogmqtt.wire.topics import Topics, is_id
from fogmqtt.workers.resources import cores, machine_id

if TYPE_CHECKING:
    from fogmqtt.gateway.streams.newest_frame import NewestFrame
    from fogmqtt.gateway.streams.outputs import StreamOutput
    from fogmqtt.gateway.streams.stream import LiveStream, StreamView
    from fogmqtt.gateway.streams.streams import OpenSource, Streams
    from fogmqtt.streams.frame import FrameSource
    from fogmqtt.wire.service_messages import StreamCard

log = logging.getLogger(__name__)

#: Seconds that listeners get for the last events when the gateway stops.
_LISTENERS_S: Final = 1.0
#: The longest time between two checks for silent devices, in seconds.
_PRESENCE_S: Final = 1.0


#: Requests of clients that may wait for the server; beyond it, they are dropped.
_REQUESTS: Final = 1000


class ClientRequest(Struct, frozen=True):
    """A message on our requests topic: who asks, and the bytes of a `Request`."""

    client: str
    payload: bytes | memoryview


class Submission(Struct, frozen=True):
    """An image from the submit topic. Its receiver acknowledges the message."""

    pipeline: str
    reply: str
    message: Received
    #: The topic's fourth level, if it has one.
    tag: str = ""


class Cancellation(Struct, frozen=True):
    """A message of a submitter that wants a job of its own to end."""

    reply: str
    message: Received


class Gateway:
    """Cuts images into tiles, has devices process them, merges and delivers the results.

    It is an asynchronous context manager. Inside the block it connects, and connects again after
    every loss. It raises NoBroker if the broker refuses it permanently, or if no broker answers
    within `broker_within_s` (not with `gateway.local: always`), and DuplicateId if another gateway
    runs with the same id. The block is cancelled in these cases.

    All methods belong to the event loop.

    Parameters
    ----------
    config : the configuration
    gateway_id : the id of this gateway in topics
    connect : makes the transport; its arguments are a delivery function and the will
    serves : whether images are taken from the submit topic, and the gateway's presence is retained
    keeps_jobs : whether jobs that a stop interrupts continue later, as those of a server do
    publishes_jobs : whether the status of each job is published, which the broker keeps for a while
    broker_within_s : seconds in which a broker must answer; None means no limit
    scheduler : a scheduler for tests and measurements; None means a new one
    decoders : decode the images, and are closed with the gateway; None means new ones
    open_source : opens the sources of the configured streams, which run if the gateway serves;
        None means that they do not run
    """

    def __init__(
        self,
        config: GatewayConfig,
        gateway_id: str,
        connect: Connect,
        *,
        serves: bool = False,
        keeps_jobs: bool = False,
        publishes_jobs: bool = True,
        broker_within_s: float | None = None,
        scheduler: Scheduler | None = None,
        decoders: Decoders | None = None,
        open_source: OpenSource | None = None,
    ) -> None:
        self.config = config
        self.id = gateway_id
        self.topics = Topics(config.wire.prefix)
        self._serves = serves
        self._keeps_jobs = serves or keeps_jobs
        self._publishes_jobs = publishes_jobs
        self._broker_within_s = broker_within_s
        self._bus = EventBus()
        self._warnings = CountedWarnings()
        self._threads = Threads()
        self._background = BackgroundTasks()
        self._submissions: asyncio.Queue[Submission | Cancellation] = asyncio.Queue()
        self._requests: asyncio.Queue[ClientRequest] = asyncio.Queue(_REQUESTS)
        self._refusal = ""
        #: The broker that is used, or those that are tried.
        self._broker = ", ".join(config.broker.urls)
        self._link_history = LinkHistory(self.topics.client_id("gateway", gateway_id))
        boot = secrets.token_hex(8)
        self._duplicates = DuplicateIdCheck(boot)
        self._drops = DropCounter()

        self._link = BrokerLink(connect, gateway_will(gateway_id, self.topics))
        scheduler = scheduler or Scheduler(config.policy(), sends_reported=True, confirms_link=True)
        self._workers = LocalWorkers(self._threads)
        self._links = DeviceLinks()
        self._metrics = Metrics(config.pipelines)
        self._started_at = time.time()
        self._dispatcher = Dispatcher(
            scheduler,
            self._link,
            self._threads,
            self._workers,
            self._bus,
            self._warnings,
            self._links,
            self._metrics,
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
        # A one-off gateway needs a broker, whatever the size of its image.
        needs_broker = broker_within_s is not None and config.gateway.local != "always"
        offline_s = math.inf if needs_broker else config.gateway.local_after
        if broker_within_s is not None and not needs_broker:
            offline_s = min(offline_s, broker_within_s)
        self._settling = Settling(self._link, self._compatibility, offline_s)
        whole_image = WholeImage(
            self._threads,
            self._registry,
            self._dispatcher,
            CostModel(scheduler, Machine(platform.node(), machine_id())),
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
            self._metrics,
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
        self._open_source = open_source if serves and config.streams else None
        #: What other parts hear: who takes the messages of a topic.
        self._listeners: dict[str, Callable[[Received], None]] = {}
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

    # Streams.

    @cached_property
    def _streams(self) -> Streams:
        """The streams. A gateway for one image does not load them."""
        from fogmqtt.gateway.streams.streams import Streams

        return Streams(
            self.config,
            self.id,
            self._registry,
            self._dispatcher,
            self._threads,
            self._metrics,
            self._link,
            self.topics,
            self._warnings,
        )

    def open_stream(
        self,
        name: str,
        settings: StreamSettings,
        source: FrameSource,
        outputs: Sequence[tuple[str, StreamOutput]] = (),
    ) -> LiveStream:
        """Return a stream that `run_stream` runs. Each output has a name for the log.

        Raises PipelineError.
        """
        return self._streams.open(name, settings, source, outputs)

    def stream_outputs(self, name: str, settings: StreamSettings) -> list[tuple[str, StreamOutput]]:
        """Return the outputs that the settings of a stream name, for `open_stream`."""
        return self._streams.outputs(name, settings)

    async def run_stream(self, stream: LiveStream) -> None:
        """Run a stream until its source ends, or until cancelled. The source is the caller's."""
        await self._streams.run(stream)

    def stream_cards(self) -> list[StreamCard]:
        """Return the configured streams, for people."""
        return self._streams.cards() if "_streams" in vars(self) else []

    def newest_frame(self, name: str) -> NewestFrame | None:
        """Return what keeps the newest result of a stream; None if no stream has that name."""
        return self._streams.newest(name) if "_streams" in vars(self) else None

    def streams(self) -> tuple[StreamView, ...]:
        """Return the configured streams that are under way."""
        return self._streams.views if "_streams" in vars(self) else ()

    # Devices and events.

    def devices(self) -> tuple[DeviceView, ...]:
        """Return the devices that have sent their info, in the order of their ids."""
        return self._registry.views()

    def online(self) -> tuple[str, ...]:
        """Return the ids of the devices that are online, in order."""
        return self._registry.present()

    def live_devices(self) -> tuple[LiveDevice, ...]:
        """Return all devices as the scheduler judges them now, our own cores included."""
        return self._dispatcher.live_devices()

    def rates(self, device: str) -> Rates:
        """Return what a device did in the last seconds."""
        return self._dispatcher.throughput.rates(device, now())

    def live_stage(self, job: str) -> LiveStage | None:
        """Return the stage of a job whose tiles are under way; None if there is none."""
        return self._dispatcher.live_stage(job)

    def metrics(self) -> MetricsSnapshot:
        """Return what is counted, for monitoring."""
        jobs = self.jobs()
        return MetricsSnapshot(
            gateway=self.id,
            version=__version__,
            started_at=self._started_at,
            connected=self._link.connected,
            paused=bool(self.status.paused),
            broker_connections=self._link.connections,
            broker_dropped=self._metrics.broker_dropped,
            jobs_running=sum(handle.started_at is not None for handle in jobs),
            jobs_waiting=self.waiting,
            jobs=self._metrics.jobs(),
            job_seconds=self._metrics.job_seconds(),
            retries=self._metrics.retries,
            hedges=self._metrics.hedges,
            devices=self._metrics.devices(self._device_states()),
            streams=self._streams.metrics() if "_streams" in vars(self) else [],
        )

    def _device_states(self) -> Iterator[DeviceMetrics]:
        """Yield how each device is now: as it describes itself, and as the scheduler judges it."""
        views = {view.id: view for view in self.devices()}
        live = {device.id: device for device in self.live_devices()}
        for device in views.keys() | live.keys():
            view, judged = views.get(device), live.get(device)
            up = (
                judged.online if view is None and judged is not None else bool(view and view.online)
            )
            yield device_state(device, up=up, info=view.info if view else None, live=judged)

    @property
    def broker(self) -> str:
        """The broker that is used, or those that are tried."""
        return self._broker

    async def settled(self) -> None:
        """Wait until the devices that are online are known, or no broker answered for long."""
        await self._settling.wait_for_backlog()

    @property
    def has_retained(self) -> bool:
        """Whether the broker sent what devices retained there, so that all of them are known."""
        return self._settling.has_retained

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

    def hear(self, topic: str, take: Callable[[Received], None]) -> None:
        """Have `take` called with each message of a topic. Call it before the gateway connects.

        A broker that does not let us read the topic is named in the log.
        """
        self._listeners[topic] = take

    @property
    def link(self) -> BrokerLink:
        """The link to the broker, for replies."""
        return self._link

    async def submissions(self) -> AsyncIterator[Submission | Cancellation]:
        """Yield the images and cancellations that come from submitters, in order."""
        while True:
            yield await self._submissions.get()

    async def requests(self) -> AsyncIterator[ClientRequest]:
        """Yield what clients ask of this gateway, in order."""
        while True:
            yield await self._requests.get()

    async def decode(
        self, file: Path | bytes, name: str, *, max_pixels: int | None = None
    ) -> Image:
        """Decode the first page of an image file, when there is memory for it, to look at it.

        Raises ImageError, also for more than `max_pixels`, FogError and OSError.
        """
        return await self._runner.decode(file, name, max_pixels=max_pixels)

    @property
    def threads(self) -> Threads:
        """The threads for work that would block the event loop."""
        return self._threads

    def warn(self, reason: str, text: str) -> None:
        """Log a fault of a client or device, at a bounded rate for each reason."""
        self._warnings.add(reason, text, now())

    # Starting and stopping.

    async def __aenter__(self) -> Self:
        cv.threads(cores())
        self._supervisor = supervisor = Supervisor()
        supervisor.start(self._listen(), "messages")
        supervisor.start(self._lose_silent_devices(), "presence")
        supervisor.start(self._staff_local_device(), "local device")
        if self._publishes_jobs:
            supervisor.start(self.status.follow(self._bus.subscribe("job status")), "job status")
        if self.config.broker.protocol != 5:
            supervisor.start(self.status.clear_expired(), "expired job status")
        if self._broker_within_s is not None:
            supervisor.start(self._require_broker(self._broker_within_s), "broker")
        if self.config.exact:
            self._check_conformance()
        if self._open_source is not None:
            supervisor.start(self._streams.serve(self._open_source), "streams")
        self._subscribe()
        self._link.start()
        self._background.start(self._load_opencv(), "OpenCV")
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
        if "_streams" in vars(self):
            await self._streams.close()
        await self._runner.close("the gateway is stopping")
        for report in reports if self._publishes_jobs else ():
            state: State = "waiting" if self._keeps_jobs else "failed"
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

        def known(report: ConformanceReport) -> None:
            with suppress(RuntimeError):  # the loop is closed: the gateway has stopped
                loop.call_soon_threadsafe(self._registry.conformance_known, report)

        self._conformance = ConformanceRunner(known)
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
            for topic_filter in self.topics.submissions(self.config.gateway.group):
                transport.subscribe(topic_filter, manual_ack=True)
            transport.subscribe(self.topics.cancel(), qos=qos)
            transport.subscribe(self.topics.requests(self.id), qos=1)
        if self._open_source is not None:
            transport.subscribe(self.topics.stream("+", "enabled/set"), qos=1)
            for name, settings in self.config.streams.items():
                if settings.source == "mqtt":
                    transport.subscribe(self.topics.frame(name, "in"), qos=0)
            # Another gateway may have a stream of the same name.
            for name in self.config.streams:
                transport.subscribe(self.topics.stream(name, "state"), qos=0, optional=True)
        # The counter is last: a broker that closes the connection because of it may do so only
        # after its SUBACK, and the newest filter is then taken for the reason.
        for topic in (*self._listeners, DROPPED):
            transport.subscribe(topic, qos=qos, optional=True)

    async def _load_opencv(self) -> None:
        """Load OpenCV before it is needed. A one-off gateway sends its first tiles before that."""
        if self._broker_within_s is not None:
            with self._bus.subscribe("OpenCV") as events:
                async for event in events:
                    if isinstance(event, JobProgressed | JobEnded):
                        break
                else:
                    return  # the gateway stops
        with suppress(ImportError):  # whoever needs it names the reason
            await self._threads.apart(cv.load, "OpenCV")

    async def _require_broker(self, within_s: float) -> None:
        """Raise NoBroker if no broker has answered in time, unless this machine works without."""
        try:
            async with asyncio.timeout(within_s):
                await self._link.up()
        except TimeoutError:
            reason = self._refusal or f"no broker answered at {self._broker}"
            if len(self.config.broker.urls) > 1:
                reason = f"none of the brokers at {self._broker} can be used; the last: {reason}"
            if self.config.gateway.local == "always":
                log.warning("%s; this machine works alone (gateway.local: always)", reason)
                return
            raise NoBroker(
                f"{reason} (tried for {within_s:g} s; `mosquitto -c broker/mosquitto.conf` starts "
                "one, and for this machine so does broker.embedded: auto)"
            ) from None

    async def _lose_silent_devices(self) -> None:
        """Lose devices that have been silent for too long, but not for a fault of our own link."""
        while True:
            wakeup = self._registry.next_silence()
            if wakeup is not None and wakeup <= now():
                # If the link breaks instead, all devices are forgotten, and none is lost.
                with suppress(NotConnected):
                    self._registry.lose_silent(await self._link.confirm())
            await asyncio.sleep(_PRESENCE_S)

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
                    self._connected(url or self._broker)
                case Disconnected(reason):
                    self._disconnected(reason)
                case Refused(reason, final):
                    self._refused(reason, final)
                case Unavailable(topic, reason) if topic == DROPPED:
                    self._drops.unavailable(reason)
                case Unavailable(topic, reason):
                    log.warning("the broker does not let this gateway read %s: %s", topic, reason)
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
            self._metrics.broker_dropped += dropped
            for handle in self.jobs():
                handle.report.dropped += dropped
            return
        if (take := self._listeners.get(message.topic)) is not None:
            take(message)
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
            case ("gateways", self.id, "requests", client) if self._serves and not retained:
                self._take_request(ClientRequest(client, payload))
            case ("submit", pipeline, reply) if self._serves:
                self._submissions.put_nowait(Submission(pipeline, reply, message))
            case ("submit", pipeline, reply, tag) if self._serves:
                self._submissions.put_nowait(Submission(pipeline, reply, message, tag))
            case ("streams", name, "enabled", "set") if self._open_source and not retained:
                self._streams.switch(name, payload)
            case ("streams", name, "state") if self._open_source:
                if not retained:
                    self._streams.heard(name, payload)
            case ("frames", name, "in"):
                self._streams.pushed(name, message)
            case ("cancel", reply) if self._serves:
                self._submissions.put_nowait(Cancellation(reply, message))
            case _:
                raise WireError("unexpected topic" + (" of a retained message" if retained else ""))

    def _take_request(self, request: ClientRequest) -> None:
        if self._requests.full():
            self.warn("requests", f"too many requests: one of {request.client[:48]} is dropped")
            return
        self._requests.put_nowait(request)

    def _connected(self, url: str) -> None:
        self._broker = url
        self._settling.connected()
        self._drops.connected(url)
        self._link_history.connected(now())
        log.info("%s is online at %s%s", self.id, url, self._how_to_submit())
        self.status.introduce()
        if "_streams" in vars(self):
            self._streams.connected()
        self._bus.emit(BrokerChanged(connected=True))

    def _how_to_submit(self) -> str:
        """Return where a serving gateway takes images from the broker, for its log."""
        if not self._serves:
            return ""
        names = tuple(self.config.pipelines)
        pipeline = names[0] if len(names) == 1 else "PIPELINE"
        submit, reply = self.topics.submit(pipeline, "NAME"), self.topics.reply("NAME", "image")
        return f": an image published to {submit} is processed, and its result comes to {reply}"

    def _disconnected(self, reason: str) -> None:
        reason = self._link_history.lost(reason, now())
        self._duplicates.link_lost()
        log.warning("lost the broker at %s: %s; trying %s", self._broker, reason, self._next_try)
        self._registry.broker_lost()
        self._links.broker_lost()
        self._dispatcher.feed(BrokerLost())
        if self._local.working:
            self._local.join()
        self._bus.emit(BrokerChanged(connected=False))

    @property
    def _next_try(self) -> str:
        return "the next one" if len(self.config.broker.urls) > 1 else "again"

    def _refused(self, reason: str, final: bool) -> None:
        """Keep the broker's reason. Raises NoBroker if another try cannot succeed."""
        if final and not self._link.connections:
            raise NoBroker(reason)
        self._refusal = reason
        if self._link_history.is_due(now()):
            log.warning("no link: %s; trying %s", reason, self._next_try)

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
            self.warn(
                "duplicate id",
                f"somebody publishes an info of another gateway under the id {self.id!r} (host "
                f"{info.host or 'unknown'}); this one stays",
            )
            self.status.introduce()
