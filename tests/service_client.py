"""A client of a gateway's service, as a dashboard is one: it asks and waits for the answer."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, TypeVar

import xxhash

from fogmqtt.transport.base import Received, Transport
from fogmqtt.wire import service_messages as msg
from fogmqtt.wire.messages import Decoder, encode
from fogmqtt.wire.topics import Topics
from tests.fog import Inbox, wait_for
from tests.processes import PATIENCE_S

TOPICS = Topics()
A = TypeVar("A", bound=msg.Answer)


@dataclass
class ServiceClient:
    """Asks one gateway over a transport, which delivers to `heard`."""

    transport: Transport
    heard: Inbox
    name: str = "page"
    gateway: str = "mariem"
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._answers: Decoder[Any] = Decoder(*msg.AnyAnswer.__args__)  # type: ignore[attr-defined]
        self._updates = Decoder(msg.Update)
        self.transport.subscribe(TOPICS.answers(self.gateway, self.name))
        self.transport.subscribe(TOPICS.gateway(self.gateway, "updates"))

    def send(self, request: msg.Request) -> str:
        self.send_bytes(encode(request))
        return request.id

    def send_bytes(self, data: bytes) -> None:
        self.transport.publish(TOPICS.requests(self.gateway, self.name), data)

    def any_answer(self, request_id: str, *, within: float = PATIENCE_S) -> msg.Answer:
        topic = TOPICS.answers(self.gateway, self.name)

        def is_it(event: object) -> bool:
            if not isinstance(event, Received) or event.topic != topic:
                return False
            return bool(self._answers.decode(event.payload).id == request_id)

        found = self.heard.take_where(is_it, Received, within=within)
        answer = self._answers.decode(found.payload)
        assert isinstance(answer, msg.Answer)
        return answer

    def all_answers(self) -> list[msg.Answer]:
        """Every answer that nobody took yet."""
        topic = TOPICS.answers(self.gateway, self.name)
        events = [one for one in self.heard.all() if isinstance(one, Received)]
        return [self._answers.decode(one.payload) for one in events if one.topic == topic]

    def ask(self, kind: type[msg.Request], expected: type[A], **fields: Any) -> A:
        """Ask, and return the answer, which must be of the expected type."""
        request = kind(id=fields.pop("id", f"r{next(self._ids)}"), **fields)
        answer = self.any_answer(self.send(request))
        assert isinstance(answer, expected), answer
        return answer

    def refused(self, kind: type[msg.Request], **fields: Any) -> msg.Refusal:
        return self.ask(kind, msg.Refusal, **fields)

    def update(self, *, within: float = PATIENCE_S) -> msg.Update:
        found = self.heard.message(TOPICS.gateway(self.gateway, "updates"), within=within)
        return self._updates.decode(found.payload)

    def upload(self, data: bytes, name: str = "photo.png", **fields: Any) -> msg.JobAnswer:
        """Submit a file, in pieces."""
        upload = self.ask(msg.OpenUpload, msg.Upload, name=name, **fields).upload
        for offset in range(0, len(data), msg.PIECE_BYTES):
            piece = data[offset : offset + msg.PIECE_BYTES]
            self.ask(msg.PutPiece, msg.Upload, upload=upload, offset=offset, data=piece)
        digest = xxhash.xxh3_64_hexdigest(data)
        return self.ask(msg.SubmitUpload, msg.JobAnswer, upload=upload, digest=digest)

    def submit(self, data: bytes, name: str = "photo.png", **fields: Any) -> msg.JobAnswer:
        """Submit a file in one message."""
        return self.ask(msg.SubmitFile, msg.JobAnswer, **submit_file(data, name=name, **fields))

    def card(self, job: str) -> msg.JobCard:
        return self.ask(msg.GetJob, msg.JobAnswer, job=job).job

    def ended(self, job: str, *, within: float = PATIENCE_S) -> msg.JobCard:
        """Wait until a job has ended."""
        over = ("done", "failed", "cancelled")
        wait_for(lambda: self.card(job).state in over, within=within, what=f"the end of {job}")
        return self.card(job)

    def file(self, job: str, file: msg.JobFile = "result") -> bytes:
        """Read a whole file, and check its digest."""
        found = b""
        while True:
            piece = self.ask(msg.ReadFile, msg.Piece, job=job, file=file, offset=len(found))
            found += piece.data
            if len(found) >= piece.file.bytes:
                break
        assert xxhash.xxh3_64_hexdigest(found) == piece.file.digest
        return found


def submit_file(data: bytes, **fields: Any) -> dict[str, Any]:
    """The fields of a request that submits a file in one message."""
    return {"data": data, "digest": xxhash.xxh3_64_hexdigest(data), **fields}
