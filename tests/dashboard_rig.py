"""A dashboard in the test's own event loop, and a gateway's service that the test plays itself.

The broker is in memory. The played gateway keeps uploads and files in dictionaries, and does a job
when the test says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash
from msgspec.structs import replace

from fogmqtt.config.schema import DashboardSettings
from fogmqtt.dashboard.access import Door
from fogmqtt.dashboard.api import Api
from fogmqtt.dashboard.app import make_app
from fogmqtt.dashboard.boards import SiteBoards
from fogmqtt.dashboard.events import EventHub
from fogmqtt.dashboard.gateway_client import GatewayClient
from fogmqtt.dashboard.live import LiveEndpoint
from fogmqtt.dashboard.looking import Looking
from fogmqtt.dashboard.static_files import StaticFiles
from fogmqtt.dashboard.tokens import Tokens
from fogmqtt.transport.base import Deliver, Received, Transport, Will
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from fogmqtt.wire.messages import Decoder, encode
from fogmqtt.wire.service_messages import (
    Answer,
    AnyRequest,
    CancelJob,
    DeviceCard,
    Done,
    DropUpload,
    FileFacts,
    GatewayCard,
    GetJob,
    GetMetrics,
    GetView,
    ImageSubmission,
    JobAnswer,
    JobCard,
    JobFile,
    JobPage,
    ListJobs,
    MetricsAnswer,
    OpenUpload,
    Piece,
    PutPiece,
    ReadFile,
    Refusal,
    Request,
    Snapshot,
    SubmitFile,
    SubmitUpload,
    Update,
    Upload,
    View,
    Watch,
)
from fogmqtt.wire.service_metrics import MetricsSnapshot
from fogmqtt.wire.topics import OFFLINE, ONLINE, Topics

TOPICS = Topics()
GATEWAY = "mariem"
_REQUESTS: Decoder[Any] = Decoder(*AnyRequest.__args__)


@dataclass
class PlayedGateway:
    """The gateway's side of the service."""

    broker: MemoryBroker
    boot: str = "boot-1"
    sequence: int = 0
    devices: list[DeviceCard] = field(default_factory=list)
    jobs: dict[str, JobCard] = field(default_factory=dict)
    files: dict[tuple[str, JobFile], bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    opened: dict[str, OpenUpload] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    #: Called with each request; an answer, or None for what a gateway does.
    hook: Callable[[Request], Answer | None] = field(default=lambda request: None)
    #: The requests that are not heard.
    deaf: Callable[[Request], bool] = field(default=lambda request: False)
    max_file_bytes: int = 1_000_000

    def start(self) -> None:
        self._link = MemoryTransport(
            self.broker,
            GATEWAY,
            self._hear,
            will=Will(TOPICS.gateway(GATEWAY, "status"), OFFLINE),
        )
        self._link.subscribe(TOPICS.requests(GATEWAY))
        self._link.start()
        self.say(ONLINE)

    def say(self, status: bytes) -> None:
        self._link.publish(TOPICS.gateway(GATEWAY, "status"), status, retain=True)

    def update(self, **fields: Any) -> None:
        """Publish the next update."""
        self.sequence += 1
        update = Update(boot=self.boot, sequence=self.sequence, at=1.0, **fields)
        self._link.publish(TOPICS.gateway(GATEWAY, "updates"), encode(update))

    def card(self, **more: Any) -> GatewayCard:
        fields = {
            "id": GATEWAY,
            "boot": self.boot,
            "version": "0",
            "host": "here",
            "started_at": 0.0,
            "broker": "in memory",
            "connected": True,
        }
        return GatewayCard(**{**fields, **more})

    def add(self, card: JobCard, **files: bytes) -> JobCard:
        """Have a job with these files."""
        facts = {name: file_facts(name, data) for name, data in files.items()}
        card = replace(card, files=facts)
        self.jobs[card.id] = card
        self.files.update({(card.id, name): data for name, data in files.items()})
        return card

    def end(self, job: str, **files: bytes) -> None:
        """End a job well, and say so."""
        card = self.add(replace(self.jobs[job], state="done", ended_at=2.0), **files)
        self.update(jobs=[card])

    def asked(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.requests if isinstance(one, kind)]

    def answer(self, answer: Answer, client: str = "page") -> None:
        """Publish an answer that was held back."""
        self._link.publish(TOPICS.answers(GATEWAY, client), encode(answer))

    def _hear(self, event: object) -> None:
        if not isinstance(event, Received):
            return
        request: Request = _REQUESTS.decode(event.payload)
        self.requests.append(request)
        if self.deaf(request):
            return
        answer = self.hook(request) or self._answer(request)
        client = event.topic.rpartition("/")[2]
        self._link.publish(TOPICS.answers(GATEWAY, client), encode(answer))

    def _answer(self, request: Request) -> Answer:
        match request:
            case Watch():
                return Snapshot(
                    id=request.id,
                    boot=self.boot,
                    sequence=self.sequence,
                    at=1.0,
                    gateway=self.card(),
                    devices=self.devices,
                    jobs=list(self.jobs.values()),
                    tiles=[],
                )
            case GetJob(job=job) | CancelJob(job=job) if job in self.jobs:
                return JobAnswer(id=request.id, job=self.jobs[job])
            case GetMetrics():
                found = MetricsSnapshot(
                    gateway="mariem", version="1.0", started_at=1.0, connected=True, hedges=3
                )
                return MetricsAnswer(id=request.id, metrics=found)
            case ListJobs():
                return JobPage(id=request.id, jobs=list(self.jobs.values()))
            case SubmitFile():
                assert request.digest == xxhash.xxh3_64_hexdigest(request.data)
                return self._accept(request, request, request.data)
            case OpenUpload():
                upload = f"u{len(self.opened)}"
                self.uploads[upload], self.opened[upload] = b"", request
                return Upload(id=request.id, upload=upload, received=0)
            case PutPiece() if request.upload in self.uploads:
                return self._put(request)
            case SubmitUpload() if request.upload in self.uploads:
                return self._submit(request)
            case DropUpload():
                self.dropped.append(request.upload)
                return Done(id=request.id)
            case ReadFile() if (request.job, request.file) in self.files:
                data = self.files[request.job, request.file]
                part = data[request.offset : request.offset + request.length]
                facts = file_facts(request.file, data)
                return Piece(id=request.id, file=facts, offset=request.offset, data=part)
            case GetView():
                data = b"" if request.version == 3 else b"a picture"
                return View(
                    id=request.id,
                    version=3,
                    media_type="image/jpeg",
                    area=request.area or (0, 0, 9, 9),
                    height=9,
                    width=9,
                    data=data,
                )
        return refused(request, "not-found", "there is no such thing")

    def _put(self, request: PutPiece) -> Answer:
        known = self.uploads[request.upload]
        if request.offset > len(known):
            return refused(request, "conflict", f"the next byte is {len(known)}")
        if request.offset == len(known):
            known += request.data
        if len(known) > self.max_file_bytes:
            return refused(request, "too-large", "the file is too large", limit=self.max_file_bytes)
        self.uploads[request.upload] = known
        return Upload(id=request.id, upload=request.upload, received=len(known))

    def _submit(self, request: SubmitUpload) -> Answer:
        data = self.uploads[request.upload]
        assert request.digest == xxhash.xxh3_64_hexdigest(data)
        return self._accept(request, self.opened[request.upload], data)

    def _accept(self, request: Request, asked: ImageSubmission, data: bytes) -> JobAnswer:
        card = job_card(f"j{len(self.jobs)}", name=asked.name, pipeline=asked.pipeline)
        return JobAnswer(id=request.id, job=self.add(card, original=data))


def refused(request: Request, kind: Any, sentence: str, **more: Any) -> Refusal:
    return Refusal(id=request.id, kind=kind, sentence=sentence, **more)


def job_card(job: str = "j0", **more: Any) -> JobCard:
    fields = {"name": "photo.png", "pipeline": "invert", "state": "running", "accepted_at": 1.0}
    return JobCard(id=job, **{**fields, **more})


def file_facts(name: str, data: bytes) -> FileFacts:
    digest = xxhash.xxh3_64_hexdigest(data)
    kind = "application/json" if name in ("facts", "report", "trace") else "image/png"
    return FileFacts(name=f"{name}.png", media_type=kind, bytes=len(data), digest=digest)


@dataclass
class Answered:
    """What came back for a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The name of the problem; its sentence must be there."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.json["detail"], self
        assert self.json["status"] == self.status
        return str(self.json["type"]).rpartition(":")[2]


@dataclass
class Rig:
    """A dashboard and its gateway."""

    gateway: PlayedGateway
    client: GatewayClient
    hub: EventHub
    looking: Looking
    door: Door
    app: Any

    async def get(self, path: str, **headers: str) -> Answered:
        return await self.send("GET", path, headers=headers)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        *,
        headers: dict[str, str] | None = None,
        peer: str = "127.0.0.1",
        leaves: bool = False,
    ) -> Answered:
        """Send a request. With `leaves`, the client is gone after the last piece of the body."""
        pieces = [body] if isinstance(body, bytes) else list(body)
        messages = [
            {"type": "http.request", "body": piece, "more_body": leaves or number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            if leaves:
                return {"type": "http.disconnect"}
            return await asyncio.get_running_loop().create_future()

        async def keep(message: Any) -> None:
            sent.append(message)

        await self.app(scope(method, path, headers or {}, peer), receive, keep)
        names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        data = b"".join(message.get("body", b"") for message in sent[1:])
        return Answered(sent[0]["status"], names, data)


def scope(method: str, path: str, headers: dict[str, str], peer: str) -> dict[str, Any]:
    """A request as uvicorn describes it to an application."""
    path, _, query = path.partition("?")
    named = {"host": "127.0.0.1:8080", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
        "client": (peer, 50_000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }


@asynccontextmanager
async def dashboard(
    *,
    settings: DashboardSettings | None = None,
    tokens: Tokens | None = None,
    static: Path | None = None,
    body_s: float = 30.0,
    boards: SiteBoards | None = None,
    starts: bool = True,
    broker: MemoryBroker | None = None,
) -> AsyncIterator[Rig]:
    """Run a dashboard during the block."""
    broker = broker or MemoryBroker()
    gateway = PlayedGateway(broker)
    if starts:
        gateway.start()

    def connect(deliver: Deliver) -> Transport:
        return MemoryTransport(broker, "dashboard", deliver)

    client = GatewayClient(GATEWAY, "page", TOPICS, connect)
    hub, looking = EventHub(client), Looking(client)
    door = Door(settings or DashboardSettings(), tokens, "fogmqtt_mariem")
    files = StaticFiles() if static is None else StaticFiles(static)
    api = Api(client, hub, looking, door, boards=boards, body_s=body_s)
    app = make_app(api, LiveEndpoint(client, looking, door), door, files)
    client.start()
    try:
        yield Rig(gateway, client, hub, looking, door, app)
    finally:
        hub.close()
        await client.close()
