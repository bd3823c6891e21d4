"""The gateway: events in, actions out.

One thread owns everything here, the one inside `run`. The transport's thread and the pool's only
put things into the inbox, so nothing is locked. Pixels are touched in the pool alone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import assert_never

from fogmqtt.config import GatewayConfig
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.core.duplicate_id import DuplicateIdCheck
from fogmqtt.core.scheduling import actions as act
from fogmqtt.core.scheduling.events import BrokerLost, Event, Tick
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.errors import NoBroker, NotConnected, WireError
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.devices.registry import DeviceRegistry, helper_devices
from fogmqtt.gateway.devices.status_publisher import JobStatusClient, State, StatusPublisher, status
from fogmqtt.gateway.duplicate_gateway import is_duplicate_gateway
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.execution.local_device import LocalDevice
from fogmqtt.gateway.execution.local_workers import LocalWorkers
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.gateway.jobs.model import Job, JobRequest
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.jobs.runner import JobRunner
from fogmqtt.gateway.jobs.timeouts import starving, time_out, unanswered
from fogmqtt.gateway.loop import Loop, Stop, now
from fogmqtt.gateway.server.broker_health import DROPPED, DropCounter
from fogmqtt.log import CountedWarnings
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
from fogmqtt.wire.messages import JobStatus
from fogmqtt.wire.topics import Topics, is_id

log = logging.getLogger(__name__)

#: Seconds from the link's begin until the devices' retained topics have come in.
SETTLE_S = 0.3
#: Room that we leave below the broker's limit for topic and properties.
PACKET_ROOM = 1024
#: What an automatic plan counts on where nobody is there yet.
WORKERS_UNKNOWN = 4

Connect = Callable[[Deliver, Will], Transport]
#: (pipeline, reply, message) of what came on the submit topic; whoever takes it acknowledges it.
Submission = Callable[[str, str, Received], None]


class Gateway:
    """Cuts, sends, merges and retries.

    Parameters
    ----------
    config : the configuration
    gateway_id : our id on the wire
    connect : makes the transport, given where it delivers and our last will
    on_submission : takes what arrives on the submit topic; None: we do not subscribe to it
    """

    def __init__(
        self,
        config: GatewayConfig,
        gateway_id: str,
        connect: Connect,
        on_submission: Submission | None = None,
    ) -> None:
        self.config = config
        self.id = gateway_id
        self.topics = Topics(config.wire.prefix)
        self.loop = Loop()
        self.voice = StatusPublisher(
            gateway_id,
            self.topics,
            config.pipelines,
            stays=on_submission is not None,
            expires=config.broker.protocol == 5,
        )
        self.scheduler = Scheduler(config.policy())
        standard = Compatibility(exact=config.exact)
        self.roster = DeviceRegistry(self.feed, standard, lambda device: self._courier.warm(device))
        self.conductor = JobRunner(
            config,
            self.loop,
            self.feed,
            limits=self._limits,
            workers=lambda: self.roster.workers() or WORKERS_UNKNOWN,
            settles_at=self._settles_at,
            needs=self._needs,
            helpers=lambda stage: helper_devices(
                self.roster, self.scheduler.ready_devices(), stage
            ),
            forget=lambda key: self._courier.forget(key),
        )
        self._hands = LocalWorkers(self.loop)
        self._courier = Dispatcher(
            gateway_id,
            config.wire,
            self.topics,
            self.loop,
            self._hands,
            self.conductor,
            self.feed,
            self.complain,
        )
        self._on_submission = on_submission
        self._started_at = now()
        self._events: deque[Event] = deque()
        self._pumping = False
        self._connected_at: float | None = None
        #: Counts the connections: what was on its way on an earlier one may be lost.
        self.links = 0
        #: Hears the token of each message that was published with one.
        self.on_published: Callable[[object], None] = lambda _: None
        self._refusal = ""
        self._packet_bytes: int | None = None
        self._local = LocalDevice(
            self.voice.boot, self.feed, lambda: self._courier.working, self._hands.warm
        )
        self._rivals = DuplicateIdCheck(self.voice.boot)
        self._complaints = CountedWarnings()
        self._drops = DropCounter()
        self._examiner = ConformanceRunner(self.loop.deliver)
        if config.exact:
            self._examiner.start()
        #: What else is done between two messages: each returns when it wants to be called again.
        self.periodic_tasks: list[Callable[[float], float | None]] = []
        self.transport = connect(self.loop.deliver, self.voice.will)
        self._courier.transport = self.transport
        for topic_filter in self.voice.hears():
            self.transport.subscribe(topic_filter, qos=config.wire.qos)
        if on_submission is not None:
            # Shared among gateways, so that one image is done once; 3.1.1 knows no sharing.
            shared = "$share/gateways/" if config.broker.protocol == 5 else ""
            self.transport.subscribe(f"{shared}{self.topics.submit()}", hold=True)

    def run(self, until: Callable[[], bool]) -> None:
        """Work until `until` holds or Stop arrives.

        Raises NoBroker where the broker refuses us for good, or does not answer a one-off run
        in time, and DuplicateId where another gateway is alive under our id.
        """
        if self.config.gateway.local == "always":
            self._local.join()
        self.loop.run(self._handle, self._tick, until)

    def submit(self, request: JobRequest) -> None:
        """Take a job. Owner thread, or before `run`."""
        self.conductor.submit(replace(request, client=JobStatusClient(request.client, self._say)))

    def give_up(self, *, without_broker_s: float, timeout_s: float | None) -> None:
        """For one-off runs: raise NoBroker, or fail what is left, when the time is up."""
        self.periodic_tasks.append(lambda moment: self._need_broker(moment, without_broker_s))
        if timeout_s is not None:
            self.periodic_tasks.append(lambda moment: self._time_out(moment, timeout_s))

    @property
    def connected(self) -> bool:
        return self._connected_at is not None

    def stop(self) -> None:
        """Leave `run`. Any thread."""
        self.loop.deliver(Stop())

    def close(self) -> None:
        """End what is under way, say `offline`, leave nothing behind."""
        state: State = "waiting" if self._on_submission else "failed"
        for job in self.conductor.jobs():
            self._say(status(job.report, state, "the gateway stopped"))
        self.conductor.cancel_all("the gateway is stopping")
        self._examiner.close()
        self.voice.leave(self.transport)
        self.transport.close()
        self._hands.close()
        self.loop.close()

    def complain(self, reason: str, text: str) -> None:
        """Log what others did wrong, at a bounded rate for each of our few reasons."""
        self._complaints.add(reason, text, now())

    def feed(self, event: Event) -> None:
        """Tell the scheduler, and do what it says; events that this causes wait their turn."""
        self._events.append(event)
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._events:
                for action in self.scheduler.handle(self._events.popleft(), now()):
                    self._perform(action)
        finally:
            self._pumping = False

    # What arrives.

    def _handle(self, item: object) -> None:
        match item:
            case Received(topic) if topic == DROPPED:
                self._drops.heard(item.payload, (job.report for job in self.conductor.jobs()))
            case Received():
                self._received(item)
            case Published(token):
                self.on_published(token)
            case Connected(max_packet_bytes):
                self._connected(max_packet_bytes)
            case Disconnected(reason):
                self._disconnected(reason)
            case Refused(reason, final):
                self._refused(reason, final)
            case ConformanceReport():
                self.roster.examined(item)
            case _:
                raise TypeError(f"nobody handles {item!r}")

    def _received(self, message: Received) -> None:
        try:
            self._dispatch(message, message.payload, message.retained)
        except WireError as problem:
            self.complain("strange message", f"{message.topic[:120]}: {problem}")

    def _dispatch(self, message: Received, payload: bytes, retained: bool) -> None:
        match self.topics.levels(message.topic):
            case ("devices", device, ("status" | "info") as leaf) if is_id(device):
                self.roster.received(device, leaf, payload, retained, now())
            case ("gateways", _, "results", device) if is_id(device) and not retained:
                self.roster.heard(device, now())
                self._courier.received(device, payload)
            case ("gateways", self.id, "info"):
                self._rival(payload)
            case ("submit", pipeline, reply) if self._on_submission:
                self._on_submission(pipeline, reply, message)
            case _:
                raise WireError("nothing that we take" + (" retained" if retained else ""))

    def _connected(self, max_packet_bytes: int | None) -> None:
        self._packet_bytes = max_packet_bytes
        self._connected_at = now()
        self.links += 1
        log.info("%s is online at %s", self.id, self.config.broker.url)
        self.introduce()

    def introduce(self) -> None:
        """Say who we are, where there is a link."""
        with suppress(NotConnected):  # lost again already; the next Connected comes
            self.voice.introduce(self.transport, now() - self._started_at)

    def _disconnected(self, reason: str) -> None:
        log.warning("lost the broker at %s: %s; trying again", self.config.broker.url, reason)
        self._connected_at = None
        self.roster.broker_lost()
        self.feed(BrokerLost())
        if self._local.working:
            self._local.join()

    def _refused(self, reason: str, final: bool) -> None:
        if final and not self.links:
            raise NoBroker(reason)
        self._refusal = reason
        self._complaints.add("no link", reason, now())

    def _rival(self, payload: bytes) -> None:
        if payload:  # else somebody cleared the topic
            info, uptime_s = self.voice.read(payload), now() - self._started_at
            if is_duplicate_gateway(self._rivals, info, self.voice.boot, uptime_s, self.id):
                self.introduce()

    def _say(self, said: JobStatus) -> None:
        self.voice.job(self.transport, said, now())

    # What is due.

    def _tick(self) -> float | None:
        moment = now()
        if (wakeup := self.scheduler.next_wakeup()) is not None and wakeup <= moment:
            self.feed(Tick())
        if self.config.gateway.local == "auto":
            self._local.staff(
                wanted=self.conductor.wants_local, devices=self.scheduler.ready_devices
            )
        self._local.tick()
        wakeups = [
            self.scheduler.next_wakeup(),
            self.roster.tick(moment),
            self.conductor.tick(),
            self.voice.tick(self.transport, moment),
        ]
        wakeups += [chore(moment) for chore in self.periodic_tasks]
        return min((wakeup for wakeup in wakeups if wakeup is not None), default=None)

    def _need_broker(self, moment: float, patience_s: float) -> float | None:
        if self.links:
            return None
        if moment - self._started_at < patience_s:
            return self._started_at + patience_s
        raise unanswered(self.config.broker.url, self._refusal, patience_s)

    def _time_out(self, moment: float, timeout_s: float) -> float | None:
        if moment - self._started_at < timeout_s:
            return self._started_at + timeout_s
        time_out(self.conductor, timeout_s, self.roster.present())
        return None

    def _limits(self) -> MessageLimits:
        """What a message may be now: our limit, or the broker's where that is lower."""
        limit = self.config.wire.max_message_bytes
        if self._packet_bytes is not None:
            limit = min(limit, self._packet_bytes - PACKET_ROOM)
        return MessageLimits(limit, self.config.wire.encoding)

    def _settles_at(self) -> float | None:
        """When to plan with the devices that we know: their retained topics are in by then."""
        if not self.roster.standard.known:
            return None
        if self._connected_at is None:
            return self._started_at + self.config.gateway.local_after
        return self._connected_at + SETTLE_S

    # What the scheduler says.

    def _perform(self, action: act.Action) -> None:
        match action:
            case act.SendTile():
                self._courier.send(action)
            case act.SplitTile():
                self.conductor.split(action)
            case act.CancelTile():
                self._courier.cancel(action)
            case act.KeepResult():
                self._courier.keep(action)
            case act.DropResult():
                self._courier.drop(action)
            case act.RevokeResult():
                self._courier.revoke(action)
            case act.Arbitrate():
                self._courier.arbitrate(action)
            case act.FinishJob(job):
                self._finish(job)
            case act.FailJob(job, reason):
                self._fail(job, reason)
            case act.ReportStarved(job, waited_s, reason):
                self._starved(job, waited_s, reason)
            case act.Quarantine(device, seconds, reason):
                log.warning("%s is in quarantine for %.0f s: %s", device, seconds, reason)
            case act.DistrustTimings(device, claim):
                log.warning("%s %s: its own timings are not used", device, claim)
            case _:
                assert_never(action)

    def _finish(self, key: str) -> None:
        if job := self._ended(key):
            self.conductor.finished(job)

    def _fail(self, key: str, reason: str) -> None:
        if (job := self._ended(key)) is not None:
            job.finished = True  # the scheduler has let go of it
            self.conductor.fail(job, "\n".join(filter(None, (reason, job.report.last_traceback()))))

    def _ended(self, key: str) -> Job | None:
        self._courier.forget(key)
        if (job := self.conductor.job(key)) is not None:
            self._count(job.report, key)
        return job

    # The gateway's own cores.

    def _starved(self, key: str, waited_s: float, reason: str) -> None:
        if (job := self.conductor.job(key)) is None:
            return
        never = self.config.gateway.local == "never"
        if not never:
            self._local.join()
        job.request.client.notice(job.id, starving(waited_s, reason, never=never))

    def _needs(self, run: StageRun) -> frozenset[str]:
        needs = self.roster.standard.needs(run)
        self._local.offer(needs)
        return needs

    def _count(self, report: Report, key: str) -> None:
        progress = self.scheduler.progress(key)
        report.retries += progress.retries
        report.hedges += progress.hedges
        report.checked += progress.checked
        self.scheduler.forget(key)
