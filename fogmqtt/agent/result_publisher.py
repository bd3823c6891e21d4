"""What a device says to gateways about tiles. Keeps a result over a lost link, for its lease."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from fogmqtt.agent.tile_lease import TileAddress
from fogmqtt.core.device_queue import TileKey
from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.transport.base import Transport
from fogmqtt.wire.messages import (
    CONTENT_TYPES,
    Accepted,
    Failure,
    FromDevice,
    Rejected,
    Result,
    encode,
    with_digest,
)
from fogmqtt.wire.topics import Topics
from fogmqtt.workers.work import Failed, Finished, Pixels

log = logging.getLogger(__name__)

#: How much is kept while there is no link.
_KEPT_MESSAGES = 64
_KEPT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Answer:
    address: TileAddress
    payload: bytes
    is_result: bool
    qos: int


class ResultPublisher:
    """Says it on the gateway's results topic, in the encoding that the task came in."""

    def __init__(self, transport: Transport, topics: Topics, device: str, qos: int) -> None:
        self._transport = transport
        self._topics = topics
        self._device = device
        self._qos = qos
        self._kept: deque[_Answer] = deque()

    @property
    def kept(self) -> int:
        """Answers that wait for the link."""
        return len(self._kept)

    def accept(self, to: TileAddress) -> None:
        """Not kept: without a link the gateway takes its tiles back anyway.

        At QoS 0, whatever the rest has: if one is lost, the result or the gateway's own patience
        stands in for it, and its PUBACKs would cost more than it does.
        """
        message = Accepted(job=to.job, tile=to.tile, attempt=to.attempt)
        self._say(to, message, keep=False, qos=0)

    def hand_back(self, to: TileAddress, reason: str) -> None:
        message = Rejected(job=to.job, tile=to.tile, attempt=to.attempt, reason=reason)
        self._say(to, message, keep=False)

    def fail(self, to: TileAddress, reason: str, traceback: str = "") -> None:
        self._say(
            to,
            Failure(
                job=to.job,
                tile=to.tile,
                attempt=to.attempt,
                reason=reason[:2_000],
                traceback=traceback,
            ),
        )

    def finish(self, to: TileAddress, done: Finished[TileKey]) -> None:
        """Say what a worker made of the tile; `to` is its newest attempt."""
        match done.outcome:
            case Pixels():
                self._result(to, done.outcome, done)
            case Failed(reason, traceback):
                self.fail(to, reason, traceback)

    def connected(self, now: float) -> None:
        """Say what was kept and still matters."""
        kept, self._kept = self._kept, deque()
        for answer in kept:
            if answer.address.until > now:
                self._publish(answer, keep=True)
            else:
                log.warning("%s: its lease ran out before the link came back", _name(answer))

    def _result(self, to: TileAddress, made: Pixels, done: Finished[TileKey]) -> None:
        result = Result(
            job=to.job,
            tile=to.tile,
            attempt=to.attempt,
            shape=made.shape,
            dtype=made.dtype,  # type: ignore[arg-type]  # the gateway checks it, as all of it
            codec=made.codec,
            queue_s=done.queue_s,
            start_s=done.start_s,
            compute_s=done.compute_s,
            pixels=made.data,
        )
        self._say(to, with_digest(result))

    def _say(
        self, to: TileAddress, message: FromDevice, *, keep: bool = True, qos: int | None = None
    ) -> None:
        payload = encode(message, to.encoding)
        qos = self._qos if qos is None else qos
        self._publish(_Answer(to, payload, isinstance(message, Result), qos), keep=keep)

    def _publish(self, answer: _Answer, *, keep: bool) -> None:
        address = answer.address
        try:
            self._transport.publish(
                self._topics.results(address.gateway, self._device),
                answer.payload,
                qos=answer.qos,
                content_type=CONTENT_TYPES[address.encoding],
            )
        except NotConnected:
            if keep:
                self._keep(answer)
        except TooLarge as problem:
            self._too_large(answer, problem)

    def _too_large(self, answer: _Answer, problem: TooLarge) -> None:
        if answer.is_result:
            self.fail(answer.address, f"the result cannot be sent: {problem}")
        else:
            log.warning("%s: no answer: %s", _name(answer), problem)

    def _keep(self, answer: _Answer) -> None:
        self._kept.append(answer)
        while len(self._kept) > _KEPT_MESSAGES or self._kept_bytes() > _KEPT_BYTES:
            log.warning("%s: dropped, too many results wait for the link", _name(self._kept[0]))
            self._kept.popleft()

    def _kept_bytes(self) -> int:
        return sum(len(answer.payload) for answer in self._kept)


def _name(answer: _Answer) -> str:
    return f"{answer.address.job} tile {answer.address.tile}"
