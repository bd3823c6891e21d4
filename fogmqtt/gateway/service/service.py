"""The gateway's side of dashboards and programs: takes their requests, answers, and tells watchers.

    requests/<client> -> decode -> queue of the client -> handler -> answers/<client>
    events, tiles, devices -> updates, while somebody watches

A client has a bounded queue of its own, and a few of its requests are done at a time. So a client
that floods delays nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import re
import tempfile
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fogmqtt import __version__
from fogmqtt.config import GatewayConfig
from fogmqtt.errors import (
    FogError,
    ListenerDropped,
    NotConnected,
    TooLarge,
    UnsupportedVersion,
    WireError,
)
from fogmqtt.gateway.app import ClientRequest, Gateway
from fogmqtt.gateway.background import BackgroundTasks, Supervisor
from fogmqtt.gateway.events import (
    DeviceCame,
    DeviceLeft,
    EventSubscription,
    JobNoticed,
    JobProgressed,
)
from fogmqtt.gateway.service.acts import Acts, Intake
from fogmqtt.gateway.service.catalogue import Catalogue
from fogmqtt.gateway.service.files import read_file
from fogmqtt.gateway.service.forecasts import Forecasts
from fogmqtt.gateway.service.jobs import Jobs
from fogmqtt.gateway.service.refusals import RequestRefused, refusal
from fogmqtt.gateway.service.uploads import Uploads
from fogmqtt.gateway.service.views import Views
from fogmqtt.gateway.service.watchers import Watchers
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.threads import IoThread
from fogmqtt.log import one_line
from fogmqtt.wire import service_messages as msg
from fogmqtt.wire.messages import Decoder, Head, encode, head_of

log = logging.getLogger(__name__)

#: Bytes of a request at most: a piece and its header.
MAX_REQUEST_BYTES: Final = msg.PIECE_BYTES + 64 * 1024
#: Requests of one client that are done at a time, and that may wait.
AT_A_TIME: Final = 8
MAX_WAITING: Final = 64
#: Requests of one client that may wait for the next frame of a stream, beside all others.
MAX_LOOKS: Final = 32
#: Clients that are known, and acts of each whose answers are kept for a repeated request.
_MAX_CLIENTS: Final = 256
_KEPT_ANSWERS: Final = 64
#: Seconds between two looks for abandoned uploads.
_TIDY_S: Final = 10.0

_CLIENT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
#: The types of all requests.
_TYPES: Final = frozenset(str(kind.__struct_config__.tag) for kind in msg.AnyRequest.__args__)
#: Requests that change something: a repeated one gets the same answer.
_ACTS: Final = (
    msg.CancelJob,
    msg.RetryJob,
    msg.RetryCallback,
    msg.RepeatJob,
    msg.SubmitFile,
    msg.OpenUpload,
    msg.SubmitUpload,
    msg.DropUpload,
)


@dataclass(slots=True)
class _Client:
    """A client: its requests, and the answers to its acts."""

    waiting: deque[msg.Request] = field(default_factory=deque)
    doing: set[str] = field(default_factory=set)
    #: Requests that wait for a frame.
    looking: set[str] = field(default_factory=set)
    answers: OrderedDict[str, bytes] = field(default_factory=OrderedDict)


class Service:
    """Answers clients, and keeps the history of jobs. It belongs to the event loop.

    `intake` takes what is submitted. `spool` is the folder for uploads and the history; without
    one both are in a temporary folder, which goes with the gateway.
    """

    def __init__(
        self,
        config: GatewayConfig,
        gateway: Gateway,
        intake: Intake,
        spool: Path | None,
        disk: DurableFiles,
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._temporary = None if spool else tempfile.TemporaryDirectory(prefix="fogmqtt-")
        folder = spool or Path(self._temporary.name if self._temporary else "")
        self.jobs = Jobs(config, gateway, folder / "history", disk)
        limits = config.limits
        self._uploads = Uploads(folder / "uploads", disk, limits.max_file_bytes, limits.max_uploads)
        self._upload_thread = IoThread("uploads")
        self._acts = Acts(config, gateway, intake, self.jobs, self._uploads, self._upload_thread)
        #: Why devices left.
        self._why_left: dict[str, str] = {}
        self._watch = Watchers(gateway, self.jobs, self.gateway_card, self._why_left)
        self._views = Views(gateway, self.jobs)
        self._catalogue = Catalogue(config, gateway)
        self._forecasts = Forecasts(config, gateway)
        self._decoder: Decoder[Any] = Decoder(*msg.AnyRequest.__args__)
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._background = BackgroundTasks()
        self._started_at = round(time.time(), 3)

    async def load(self) -> None:
        """Read what earlier runs kept. Call it before any job begins. Raises OSError."""
        await self.jobs.load()
        await self._upload_thread.call(self._uploads.load)

    async def run(self) -> None:
        """Take requests and publish updates until cancelled."""
        events = self._gateway.events("service")
        try:
            async with Supervisor() as supervisor:
                supervisor.start(self._follow(events), "service events")
                supervisor.start(self._watch.run(), "updates")
                supervisor.start(self._tidy(), "uploads")
                async for request in self._gateway.requests():
                    self._take(request)
        finally:
            await self._background.close()

    def close(self) -> None:
        """End the threads. Call it when no job runs any more."""
        self.jobs.close()
        self._upload_thread.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def undelivered(self, job: str, place: str, what: msg.Undelivered | None) -> None:
        """A result did not reach a place; None: it did after all."""
        self._background.start(self.jobs.undelivered(job, place, what), "undelivered")

    # Events.

    async def _follow(self, events: EventSubscription) -> None:
        with events:
            try:
                async for event in events:
                    match event:
                        case JobProgressed(report):
                            self.jobs.mark(report.job)
                        case JobNoticed(report, text):
                            self.jobs.notice(report.job, text)
                        case DeviceLeft(device, reason):
                            self._why_left[device] = reason
                            self._watch.look_again()
                        case DeviceCame(device):
                            self._why_left.pop(device, None)
                            self._watch.look_again()
                        case _:
                            pass
            except ListenerDropped:
                return  # cards are complete at the next look; the log names it

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_S)
            if self._uploads.any_open:
                await self._upload_thread.call(self._uploads.remove_abandoned)

    # Requests.

    def _take(self, asked: ClientRequest) -> None:
        """Queue a request, or refuse it at once."""
        client, payload = asked.client, asked.payload
        if _CLIENT.fullmatch(client) is None:
            self._gateway.warn("requests", f"{one_line(client[:48])!r} is no name of a client")
            return
        known = self._client(client)
        try:
            request = self._decode(payload)
        except (WireError, RequestRefused) as problem:
            self._gateway.warn("requests", f"{client}: {problem}")
            if (head := head_of(payload)).id:
                self._answer(client, encode(refusal(head.id, _refused(head, problem))))
            return
        if (kept := known.answers.get(request.id)) is not None:
            self._answer(client, kept)
        elif request.id in known.looking:
            return  # its answer comes
        elif isinstance(request, msg.GetStreamFrame):
            self._look(client, known, request)
        elif request.id in known.doing or any(one.id == request.id for one in known.waiting):
            return  # its answer comes
        elif len(known.waiting) >= MAX_WAITING:
            busy = RequestRefused(
                "busy",
                f"{MAX_WAITING} requests of {client} wait; ask less often",
                limit=MAX_WAITING,
                retry_after_s=1.0,
            )
            self._answer(client, encode(refusal(request.id, busy)))
        else:
            known.waiting.append(request)
            self._begin_some(client, known)

    def _look(self, client: str, known: _Client, request: msg.GetStreamFrame) -> None:
        """Answer when there is a frame. Requests that wait for one delay no others."""
        if len(known.looking) >= MAX_LOOKS:
            sentence = f"{client} looks at {MAX_LOOKS} pictures of streams at a time already"
            busy = RequestRefused("busy", sentence, limit=MAX_LOOKS, retry_after_s=1.0)
            self._answer(client, encode(refusal(request.id, busy)))
            return
        known.looking.add(request.id)
        self._background.start(self._do(client, known, request), f"look of {client}")

    def _decode(self, payload: bytes | memoryview) -> msg.Request:
        if len(payload) > MAX_REQUEST_BYTES:
            raise RequestRefused(
                "too-large",
                f"a request of {len(payload)} bytes, over {MAX_REQUEST_BYTES}; send smaller pieces",
                limit=MAX_REQUEST_BYTES,
            )
        request = self._decoder.decode(payload)
        assert isinstance(request, msg.Request)  # noqa: S101  # the decoder's types
        return request

    def _client(self, name: str) -> _Client:
        """Return what is known of a client; those that did not ask for long are forgotten."""
        known = self._clients.pop(name, None) or _Client()
        self._clients[name] = known
        if len(self._clients) > _MAX_CLIENTS:
            for other, one in tuple(self._clients.items()):
                if not one.doing and not one.waiting and not one.looking:
                    del self._clients[other]
                    break
        return known

    def _begin_some(self, client: str, known: _Client) -> None:
        while known.waiting and len(known.doing) < AT_A_TIME:
            request = known.waiting.popleft()
            known.doing.add(request.id)
            self._background.start(self._do(client, known, request), f"request of {client}")

    async def _do(self, client: str, known: _Client, request: msg.Request) -> None:
        try:
            answer: msg.Answer = await self._handle(client, request)
        except (FogError, OSError) as problem:
            answer = refusal(request.id, problem)
        except Exception:
            log.exception("a request of %s failed", client)
            answer = msg.Refusal(
                id=request.id, kind="failed", sentence="the gateway failed; its log says why"
            )
        finally:
            known.doing.discard(request.id)
            known.looking.discard(request.id)
        data = encode(answer)
        if isinstance(request, _ACTS):
            known.answers[request.id] = data
            if len(known.answers) > _KEPT_ANSWERS:
                known.answers.popitem(last=False)
        self._answer(client, data)
        self._begin_some(client, known)

    def _answer(self, client: str, data: bytes) -> None:
        topic = self._gateway.topics.answers(self._gateway.id, client)
        try:
            self._gateway.link.publish(topic, data, qos=1)
        except NotConnected:
            return  # the client asks again
        except TooLarge as problem:
            if request_id := head_of(data).id:
                self._gateway.warn("answers", str(problem))
                short = encode(refusal(request_id, RequestRefused("too-large", str(problem))))
                self._gateway.link.publish(topic, short, qos=1)

    async def _handle(self, client: str, request: msg.Request) -> msg.Answer:
        """Do a request. Raises FogError and OSError."""
        match request:
            case msg.Watch():
                return await self._watch.renew(client, request.id)
            case msg.ListJobs():
                cards, cursor = await self.jobs.page(request)
                return msg.JobPage(id=request.id, jobs=cards, next=cursor)
            case msg.GetJob():
                return msg.JobAnswer(id=request.id, job=await self.jobs.card(request.job))
            case msg.GetMetrics():
                return msg.MetricsAnswer(id=request.id, metrics=self._gateway.metrics())
            case msg.ListStreams():
                return msg.StreamList(id=request.id, streams=self._gateway.stream_cards())
            case msg.GetStreamFrame():
                return await self._stream_frame(request)
            case msg.ListOperators():
                return await self._catalogue.table(request.id)
            case msg.TryPipeline():
                return await self._catalogue.trial(request)
            case msg.SimulateFleet():
                return await self._forecasts.forecast(request)
            case msg.GetView():
                return await self._views.view(request)
            case msg.ReadFile():
                return await read_file(self.jobs, request)
            case _:
                return await self._acts.do(client, request)

    async def _stream_frame(self, asked: msg.GetStreamFrame) -> msg.StreamFrame:
        """Return a frame as soon as there is one. Raises RequestRefused and ImageError."""
        newest = self._gateway.newest_frame(asked.stream)
        if newest is None:
            if any(card.name == asked.stream for card in self._gateway.stream_cards()):
                return msg.StreamFrame(id=asked.id)  # it did not run yet
            raise RequestRefused("not-found", f"there is no stream {one_line(asked.stream)[:32]!r}")
        found = await newest.picture(asked.width, asked.after, asked.wait_s)
        if found is None:
            return msg.StreamFrame(id=asked.id, version=newest.version)
        return msg.StreamFrame(
            id=asked.id,
            version=found.version,
            seq=found.frame.seq,
            captured_at=round(found.frame.captured_utc, 3),
            age_s=round(found.frame.age_s, 4),
            data=found.data,
        )

    def device_cards(self) -> list[msg.DeviceCard]:
        """Return a card for each device, as it does now."""
        return self._watch.device_cards()

    def gateway_card(self) -> msg.GatewayCard:
        """Return the gateway's own card."""
        gateway, config = self._gateway, self._config
        running = sum(handle.started_at is not None for handle in gateway.jobs())
        return msg.GatewayCard(
            id=gateway.id,
            boot=gateway.status.boot,
            version=__version__,
            host=platform.node(),
            started_at=self._started_at,
            broker=gateway.broker,
            connected=gateway.link.connected,
            paused=gateway.status.paused,
            pipelines=config.pipelines,
            default_pipeline=config.pipeline,
            formats=config.formats,
            max_file_bytes=config.limits.max_file_bytes,
            max_pixels=config.limits.max_pixels,
            waiting=gateway.waiting,
            running=running,
        )


def _refused(head: Head, problem: FogError) -> RequestRefused:
    """Return why a message is no request that this gateway knows."""
    if isinstance(problem, RequestRefused):
        return problem
    if isinstance(problem, UnsupportedVersion) or (head.type and head.type not in _TYPES):
        what = f"the request {one_line(head.type)[:40]!r}"
        return RequestRefused(
            "other-version",
            f"this gateway, version {__version__}, does not know {what}; update the older program",
        )
    return RequestRefused("invalid", str(problem))
