"""Brings the result of a job to all its places, and tells which it did not reach.

    callbacks (on disk) -> outbox -> latest topics -> reply topics -> status -> callbacks (sent)

A result that misses the outbox or the reply topics is a failed job. A latest topic or a callback
that fails is told in the log and in the status, and fails nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import FogError, TransportError, UsageError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.devices.status_publisher import job_status
from fogmqtt.gateway.jobs.model import Outcome
from fogmqtt.gateway.server.answers import Answers, ResultFile, as_json_file
from fogmqtt.gateway.server.callbacks import Callbacks
from fogmqtt.gateway.server.destinations import Destinations, parse_destinations
from fogmqtt.gateway.server.outbox import Outbox
from fogmqtt.gateway.server.replies import Replies, Reply
from fogmqtt.gateway.storage.api import JobHistory, SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.storage.given_up import CallbackNote
from fogmqtt.images.encode import encode as encode_images
from fogmqtt.images.result_format import ResultFormat, format_of_suffix, parse_result_format
from fogmqtt.operators.api.measuring import as_json
from fogmqtt.wire.messages import JobStatus
from fogmqtt.wire.service_messages import Outlook, Undelivered

log = logging.getLogger(__name__)

#: Keeps a result for the history; called in a thread.
KeepResult = Callable[..., object]
#: Is told of a job's result that did not reach a place; None: it did after all.
TellUndelivered = Callable[[str, str, Undelivered | None], None]


@dataclass(slots=True)
class Delivery:
    """The result of one accepted image on its way."""

    entry: SpoolEntry
    history: JobHistory
    #: The result's path in the outbox.
    file: str | None = None
    #: The result by the last level of its topics.
    results: dict[str, ResultFile] = field(default_factory=dict)
    callbacks: list[CallbackNote] = field(default_factory=list)
    #: The places that it did not reach, with the reasons.
    undelivered: dict[str, str] = field(default_factory=dict)


class Deliveries:
    """Delivers the results of a serving gateway. Methods belong to the event loop, but `store`."""

    def __init__(
        self,
        config: GatewayConfig,
        gateway: Gateway,
        outbox: Outbox,
        replies: Replies,
        answers: Answers,
        keep_result: KeepResult,
        tell_undelivered: TellUndelivered,
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._outbox = outbox
        self._replies = replies
        self._answers = answers
        self._keep_result = keep_result
        self._tell_undelivered = tell_undelivered
        self._callbacks: Callbacks | None = None

    def use_spool(self, spool: Path, disk: DurableFiles) -> None:
        """Send callbacks, which are kept in a folder of the spool until they are sent."""
        if not self._config.callbacks:
            return
        self._callbacks = Callbacks(
            self._config.callback,
            self._config.callbacks,
            spool / "callbacks",
            disk,
            self._gateway.threads,
            self._callback_fared,
            self._config.gateway.spool_max_bytes,
        )

    def replies_to_inbox(self, pipeline: str) -> bool:
        """Whether results of the inbox are published as well."""
        return self._places(self._config.chosen(pipeline).deliver, pipeline)[0].reply

    def is_published(self, entry: SpoolEntry) -> bool:
        """Whether the broker gets the result, on reply topics or as the latest one."""
        places = self._places_of(entry)[0]
        return bool(places.latest) or self._is_replied(entry, places)

    async def load(self) -> None:
        """Take up the callbacks that earlier runs did not send. Call it before any job begins."""
        if self._callbacks is not None:
            await self._callbacks.load()

    async def run(self) -> None:
        """Send callbacks until cancelled."""
        if self._callbacks is not None:
            await self._callbacks.run()

    async def retry_callback(self, job: str, callback: str) -> None:
        """Send a callback again that was given up. Raises UsageError and OSError."""
        if self._callbacks is None:
            raise UsageError("there are no callbacks; name one in the configuration, and a spool")
        await self._callbacks.retry(job, callback)

    async def tried(self) -> None:
        """Wait until each callback was tried once."""
        if self._callbacks is not None:
            await self._callbacks.tried()

    def store(self, delivery: Delivery, outcome: Outcome) -> Sequence[str]:
        """Encode a result, and store it for the callbacks and in the outbox. Blocking.

        Returns notes. Raises ImageError.
        """
        entry, history = delivery.entry, delivery.history
        places, lost = self._places_of(entry)
        delivery.undelivered |= lost
        if outcome.error or not outcome.images:
            return ()
        form = self._result_format(entry, history, len(outcome.images))
        encoded = encode_images(outcome.images, form, outcome.metadata)
        image, facts = encoded.data, None if outcome.facts is None else as_json(outcome.facts)
        notes, filed = encoded.notes, None
        results = {"facts": ResultFile(facts, "application/json")} if facts else {}
        results["image"] = ResultFile(image, form.media_type)
        # Before the outbox: a result that is there may be taken as delivered after a restart.
        main = next(iter(results.values()))
        self._store_callbacks(delivery, places, main, job_status(outcome.report, "done"))
        if places.to_outbox(from_inbox=bool(entry.inbox)) and self._config.gateway.outbox:
            filed = self._outbox.put(entry, history, image, facts, suffix=form.suffix)
            delivery.file, notes = str(filed.main), (*notes, *filed.notes)
        paths = None if filed is None else (filed.image, filed.facts)
        self._keep_result(entry, outcome, image, facts, form.suffix, paths)
        if self.is_published(entry):
            delivery.results = results
        return notes

    async def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Publish the result and then the status, until the broker has both; send the callbacks.

        Raises TransportError if the broker does not take the replies.
        """
        entry = delivery.entry
        status = job_status(outcome.report, "failed" if outcome.error else "done", outcome.error)
        places = self._places_of(entry)[0]
        if outcome.error:
            await self._store_failure(delivery, places, status)
        else:
            await self._publish_latest(delivery, places)
        results = {} if outcome.error else delivery.results
        if not self._is_replied(entry, places):
            results = {}
        status = replace(status, file=delivery.file, undelivered=delivery.undelivered)
        for place, reason in delivery.undelivered.items():
            self._gateway.warn("delivery", f"{entry.name}: not delivered to {place}: {reason}")
            self._tell_undelivered(entry.job, place, Undelivered(reason=reason, outlook="lost"))
        try:
            await self._answers.deliver(entry, results, status)
        finally:
            if self._callbacks is not None:
                for note in delivery.callbacks:
                    self._callbacks.send(note)

    # Places.

    def _places_of(self, entry: SpoolEntry) -> tuple[Destinations, dict[str, str]]:
        # Entries of an early version do not have their places.
        text = entry.deliver or self._config.gateway.deliver
        return self._places(text, entry.pipeline_name)

    def _places(self, text: str, pipeline: str) -> tuple[Destinations, dict[str, str]]:
        """Return the places of a text, and why some of it are none (by now)."""
        words, lost = [], {}
        for word in text.replace(",", " ").split():
            try:
                parse_destinations(word, self._config.callbacks, pipeline)
            except UsageError as problem:
                lost[word] = str(problem)
            else:
                words.append(word)
        if not words:
            return Destinations(), lost
        return parse_destinations(" ".join(words), self._config.callbacks, pipeline), lost

    @staticmethod
    def _is_replied(entry: SpoolEntry, places: Destinations) -> bool:
        return bool(entry.reply) and places.to_reply(from_inbox=bool(entry.inbox))

    def _result_format(
        self, entry: SpoolEntry, history: JobHistory, page_count: int
    ) -> ResultFormat:
        """Return the format of a result; several pages need a TIFF."""
        form = parse_result_format(entry.format or self._config.gateway.format)
        if history.image_file:  # an earlier run has reserved this name
            reserved = format_of_suffix(Path(history.image_file).suffix)
            form = form if form.kind == reserved.kind else reserved
        return form if page_count == 1 or form.kind == "tiff" else ResultFormat("tiff")

    # The topics that keep the latest result.

    async def _publish_latest(self, delivery: Delivery, places: Destinations) -> None:
        for name in places.latest:
            replies = [
                Reply(
                    self._gateway.topics.latest(name, leaf),
                    result.data,
                    result.media_type,
                    retain=True,
                )
                for leaf, result in delivery.results.items()
            ]
            try:
                await self._replies.deliver(replies)
            except TransportError as problem:
                delivery.undelivered[f"latest={name}"] = str(problem)

    # Callbacks.

    def _store_callbacks(
        self, delivery: Delivery, places: Destinations, body: ResultFile, status: JobStatus
    ) -> None:
        """Write down what is to be POSTed. Blocking."""
        if self._callbacks is None:
            return
        for name in places.callbacks:
            note = CallbackNote(
                callback=name,
                entry=delivery.entry,
                status=status,
                media_type=body.media_type,
                since=time.time(),
            )
            try:
                self._callbacks.store(note, body.data)
            except (FogError, OSError) as problem:
                delivery.undelivered[name] = str(problem)
            else:
                delivery.callbacks.append(note)

    async def _store_failure(
        self, delivery: Delivery, places: Destinations, status: JobStatus
    ) -> None:
        """Tell receivers of a failed job; what was stored of a result that failed is replaced."""
        delivery.callbacks.clear()
        if places.callbacks and self._callbacks is not None:
            body = as_json_file(delivery.entry, status)
            work = partial(self._store_callbacks, delivery, places, body, status)
            await self._gateway.threads.apart(work, "callbacks")

    def _callback_fared(self, note: CallbackNote, problem: str, outlook: Outlook) -> None:
        """Tell how a callback fares that did not succeed at once."""
        entry, name = note.entry, note.callback
        way_out = f"fog-gateway retry {note.name}" if outlook == "given-up" else "it is tried again"
        what = None
        if problem:
            self._gateway.warn("callback", f"{entry.name}: callback {name}: {problem}; {way_out}")
            url = urlsplit(self._config.callbacks.get(name, ""))
            server = f"{url.scheme}://{url.netloc}" if url.netloc else ""
            what = Undelivered(reason=problem, outlook=outlook, server=server)
        else:
            log.info("%s: callback %s was sent after all", entry.name, name)
        self._tell_undelivered(entry.job, name, what)
        undelivered = {name: f"{problem}; {way_out}"} if problem else {}
        status = replace(note.status, undelivered=undelivered)
        self._answers.publish(entry, status)
        self._gateway.status.job(status)
