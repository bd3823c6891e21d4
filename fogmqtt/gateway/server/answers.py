"""What a submitter hears of an image: on which topics, and with which marks of the request.

Without a Response Topic the answers are replies/<reply>[/<tag>]/status, image and facts. With one,
the one answer that MQTT 5 promises comes there: the result, or the status of a failed job; all else
comes below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from fogmqtt.gateway.server.replies import Replies, Reply
from fogmqtt.gateway.storage.api import SpoolEntry
from fogmqtt.transport.base import MessageProperties, trace_state
from fogmqtt.wire.messages import JobStatus, encode
from fogmqtt.wire.topics import Topics

#: The longest reply name, in characters. A longer one gets no reply: it may not fit into a topic.
_LONGEST_REPLY: Final = 256


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A result as it is published: the bytes of a file and its media type."""

    data: bytes
    media_type: str


class Answers:
    """Publishes answers. It belongs to the event loop."""

    def __init__(self, replies: Replies, topics: Topics) -> None:
        self._replies = replies
        self._topics = topics

    def publish(self, entry: SpoolEntry, status: JobStatus) -> None:
        """Publish a job's status, which is lost while the link is down."""
        if _is_answerable(entry):
            self._replies.publish(self._status(entry, status))

    def tell(self, entry: SpoolEntry, status: JobStatus) -> None:
        """Publish a status as the one answer to a request that is no image."""
        if _is_answerable(entry):
            answer = self._to_response if entry.response else self._status
            self._replies.publish(answer(entry, status))

    def refuse(self, entry: SpoolEntry, reason: str) -> None:
        """Publish that an image is not taken."""
        if not _is_answerable(entry):
            return
        status = failed(entry, reason)
        self._replies.publish(self._status(entry, status))
        if entry.response:
            self._replies.publish(self._to_response(entry, status))

    async def deliver(
        self, entry: SpoolEntry, results: Mapping[str, ResultFile], status: JobStatus
    ) -> None:
        """Publish the results by their names, facts first, then the final status.

        Returns when the broker has all. Raises TransportError if it does not take them.
        """
        if not _is_answerable(entry):
            return
        answers = [
            self._reply(entry, leaf if not entry.response or index else "", result)
            for index, (leaf, result) in enumerate(results.items())
        ]
        if entry.response and status.error:
            answers.append(self._to_response(entry, status))
        answers.append(self._status(entry, status))
        await self._replies.deliver(answers)

    def _status(self, entry: SpoolEntry, status: JobStatus) -> Reply:
        return self._reply(entry, "status", as_json_file(entry, status))

    def _to_response(self, entry: SpoolEntry, status: JobStatus) -> Reply:
        return self._reply(entry, "", as_json_file(entry, status))

    def _reply(self, entry: SpoolEntry, leaf: str, file: ResultFile) -> Reply:
        """Return an answer; without a `leaf` it comes on the Response Topic itself."""
        topic = self._topics.reply(entry.reply, leaf, entry.tag)
        if entry.response:
            topic = f"{entry.response}/{leaf}" if leaf else entry.response
        properties = MessageProperties(
            correlation=entry.correlation,
            traceparent=entry.traceparent,
            user=trace_state(entry.tracestate),
        )
        return Reply(topic, file.data, file.media_type, properties)


def failed(entry: SpoolEntry, reason: str) -> JobStatus:
    """Return the status of an image without a result."""
    return JobStatus(job=entry.job, state="failed", error=reason)


def as_json_file(entry: SpoolEntry, status: JobStatus) -> ResultFile:
    """Return a status as the JSON that is published, with the marks of the submission."""
    marked = replace(
        status, tag=entry.tag, traceparent=entry.traceparent, tracestate=entry.tracestate
    )
    return ResultFile(encode(marked, "base64"), "application/json")


def _is_answerable(entry: SpoolEntry) -> bool:
    """Whether the client gave a reply name that fits into a topic."""
    return 0 < len(entry.reply) <= _LONGEST_REPLY
