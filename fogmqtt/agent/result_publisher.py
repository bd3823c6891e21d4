"""Publishes what a device reports about tiles.

Results are kept while there is no connection, and until the broker has them: what was on its way
when a connection broke is published again on the next one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass

from fogmqtt.agent.tile_lease import ReplyAddress
from fogmqtt.core.device_queue import TileKey
from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.transport.base import (
    MessageProperties,
    Payload,
    Transport,
    packet_size,
    payload_size,
    with_trace,
)
from fogmqtt.wire.messages import (
    CONTENT_TYPES,
    Accepted,
    Failure,
    FromDevice,
    Overdue,
    Rejected,
    Result,
    encode,
    encode_in_pieces,
    with_digest,
)
from fogmqtt.wire.topics import Topics
from fogmqtt.workers.work import TileOutput, WorkFailed, WorkFinished

log = logging.getLogger(__name__)

#: The maximum of what is kept while there is no connection.
_MAX_KEPT_MESSAGES = 64
_MAX_KEPT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Reply:
    address: ReplyAddress
    payload: Payload
    is_result: bool
    qos: int


class ResultPublisher:
    """Publishes on the results topic of the gateway, in the encoding of the task."""

    def __init__(self, transport: Transport, topics: Topics, device: str, qos: int) -> None:
        self._transport = transport
        self._topics = topics
        self._device = device
        self._qos = qos
        self._kept: deque[_Reply] = deque()
        #: Guards `_unconfirmed`, which the thread of the connection changes, too.
        self._lock = threading.Lock()
        #: What the broker has not confirmed on this connection, in the order of publishing. A key
        #: is the token of its message.
        self._unconfirmed: dict[object, _Reply] = {}
        #: The largest packet that the broker takes, in bytes; None if there is no limit.
        self._max_packet_bytes: int | None = None

    @property
    def kept(self) -> int:
        """The number of messages that wait for a connection."""
        return len(self._kept)

    def accept(self, to: ReplyAddress) -> None:
        """Publish that the tile is queued. Without a connection the message is dropped.

        The gateway takes its tiles back anyway if the connection is lost. The message has QoS 0
        whatever QoS is configured: if it is lost, the result or the gateway's timeout replaces
        it, and its PUBACKs would cost more than it does.
        """
        message = Accepted(job=to.job, tile=to.tile, attempt=to.attempt)
        self._send(to, message, keep=False, qos=0)

    def reject(self, to: ReplyAddress, reason: str) -> None:
        """Publish that the device does not process the tile. Dropped without a connection."""
        message = Rejected(job=to.job, tile=to.tile, attempt=to.attempt, reason=reason)
        self._send(to, message, keep=False)

    def overdue(self, to: ReplyAddress, after_s: float) -> None:
        """Publish that the tile was over its budget. Dropped without a connection."""
        message = Overdue(job=to.job, tile=to.tile, attempt=to.attempt, after_s=after_s)
        self._send(to, message, keep=False, qos=0)

    def fail(
        self,
        to: ReplyAddress,
        reason: str,
        traceback: str = "",
        packet_limit: int = 0,
        have: int | None = None,
    ) -> None:
        """Publish that the tile failed. Kept without a connection.

        `packet_limit` is set if its result does not fit into a packet of so many bytes, and `have`
        if the tile's memory has this version and not that of the task.
        """
        self._send(
            to,
            Failure(
                job=to.job,
                tile=to.tile,
                attempt=to.attempt,
                reason=reason[:2_000],
                traceback=traceback,
                packet_limit=packet_limit,
                have=have,
            ),
        )

    def finish(self, to: ReplyAddress, finished: WorkFinished[TileKey]) -> None:
        """Publish the outcome of a worker. `to` is the newest attempt. Kept without a connection.

        A cancelled tile has no reply.
        """
        match finished.outcome:
            case TileOutput():
                self._send_result(to, finished.outcome, finished)
            case WorkFailed(reason, traceback, have):
                self.fail(to, reason, traceback, have=have)

    def confirmed(self, token: object) -> bool:
        """Forget a message that the broker has or refuses. Any thread may call it.

        Returns False for the token of somebody else's message.
        """
        with self._lock:
            return self._unconfirmed.pop(token, None) is not None

    def disconnected(self) -> None:
        """Keep what was on its way: the broker may not have it.

        If it has, the gateway gets it twice, and takes the first.
        """
        with self._lock:
            unconfirmed = list(self._unconfirmed.values())
            self._unconfirmed.clear()
        kept, self._kept = self._kept, deque()
        for reply in (*unconfirmed, *kept):
            self._keep(reply)

    def connected(self, now: float, max_packet_bytes: int | None = None) -> None:
        """Publish the kept messages whose lease has not expired. `now` is monotonic seconds.

        `max_packet_bytes` is the broker's limit, announced or learned.
        """
        self._max_packet_bytes = max_packet_bytes
        kept, self._kept = self._kept, deque()
        for reply in kept:
            if reply.address.expires_at > now:
                self._publish(reply, keep=True)
            else:
                log.warning("%s: its lease expired before the reconnect", _name(reply))

    def _send_result(
        self, to: ReplyAddress, output: TileOutput, finished: WorkFinished[TileKey]
    ) -> None:
        result = Result(
            job=to.job,
            tile=to.tile,
            attempt=to.attempt,
            shape=output.shape,
            dtype=output.dtype,  # type: ignore[arg-type]  # the gateway checks the whole message
            codec=output.codec,
            queue_s=finished.queue_s,
            start_s=finished.start_s,
            compute_s=finished.compute_s,
            decode_s=output.decode_s,
            encode_s=output.encode_s,
            worker=finished.worker,
            traceparent=to.traceparent,
            tracestate=to.tracestate,
            pixels=output.data,
        )
        self._send(to, with_digest(result))

    def _send(
        self, to: ReplyAddress, message: FromDevice, *, keep: bool = True, qos: int | None = None
    ) -> None:
        payload: Payload
        if isinstance(message, Result):
            payload = encode_in_pieces(message, to.encoding)
        else:
            payload = encode(message, to.encoding)
        qos = self._qos if qos is None else qos
        self._publish(_Reply(to, payload, isinstance(message, Result), qos), keep=keep)

    def _publish(self, reply: _Reply, *, keep: bool) -> None:
        address = reply.address
        topic = self._topics.results(address.gateway, self._device)
        properties = with_trace(address.traceparent, address.tracestate)
        if reply.is_result and self._is_too_large(topic, reply.payload, properties):
            self._too_large(reply, f"a packet has {self._max_packet_bytes} bytes at most")
            return
        token = object() if keep and reply.qos else None
        if token is not None:
            with self._lock:
                self._unconfirmed[token] = reply
        try:
            self._transport.publish(
                topic,
                reply.payload,
                qos=reply.qos,
                content_type=CONTENT_TYPES[address.encoding],
                token=token,
                properties=properties,
            )
        except NotConnected:
            self.confirmed(token)
            if keep:
                self._keep(reply)
        except TooLarge as problem:
            self.confirmed(token)
            self._too_large(reply, str(problem))

    def _is_too_large(self, topic: str, payload: Payload, properties: MessageProperties) -> bool:
        """Whether a result exceeds the limit. A gateway can cut the tile, so no result tries it."""
        limit = self._max_packet_bytes
        return limit is not None and packet_size(topic, payload, properties) > limit

    def _too_large(self, reply: _Reply, problem: str) -> None:
        if reply.is_result:
            reason = f"the result of {payload_size(reply.payload)} bytes cannot be sent: {problem}"
            self.fail(reply.address, reason, packet_limit=self._max_packet_bytes or 0)
        else:
            log.warning("%s: no reply: %s", _name(reply), problem)

    def _keep(self, reply: _Reply) -> None:
        self._kept.append(reply)
        while len(self._kept) > _MAX_KEPT_MESSAGES or self._kept_bytes() > _MAX_KEPT_BYTES:
            log.warning(
                "%s: dropped, because too many replies wait for a connection", _name(self._kept[0])
            )
            self._kept.popleft()

    def _kept_bytes(self) -> int:
        return sum(payload_size(reply.payload) for reply in self._kept)


def _name(reply: _Reply) -> str:
    return f"{reply.address.job} tile {reply.address.tile}"
