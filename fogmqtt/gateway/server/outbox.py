"""The end of a serving gateway's job: results to the outbox, and to whoever asked."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from fogmqtt.config import GatewaySettings as Settings
from fogmqtt.errors import ImageError
from fogmqtt.gateway.devices.status_publisher import EVERY_S, status
from fogmqtt.gateway.jobs.model import Outcome
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.loop import now
from fogmqtt.gateway.storage.api import (
    DeadLetter,
    FailedAttempt,
    JobHistory,
    JobStore,
    SpoolEntry,
)
from fogmqtt.gateway.storage.dead_letters import make_dead_letter
from fogmqtt.gateway.storage.durable_files import DurableFiles, free_path, write
from fogmqtt.images import files
from fogmqtt.operators.api.measuring import as_json
from fogmqtt.wire.messages import JobStatus

log = logging.getLogger(__name__)

#: Who asks under a longer name, in characters, hears nothing: it may not even fit into a topic.
LONGEST_REPLY = 256


def answerable(entry: SpoolEntry) -> bool:
    """Whether there is somebody to tell how it goes."""
    return 0 < len(entry.reply) <= LONGEST_REPLY


class Outbox:
    """The folder of results. A job's files keep their names in every life of the gateway."""

    def __init__(self, settings: Settings, archive: JobStore | None, disk: DurableFiles) -> None:
        self._settings = settings
        self._archive = archive
        self._disk = disk
        #: Two pool threads must not find the same name free, …
        self._naming = threading.Lock()
        #: … nor take one that an unfinished job of an earlier life has chosen.
        self._chosen = archive.reserved_paths().result() if archive else set()

    def wants(self, entry: SpoolEntry) -> bool:
        """Whether this result goes to a folder."""
        deliver = self._settings.deliver
        wanted = deliver in ("outbox", "both") or (deliver == "auto" and bool(entry.inbox))
        return wanted and bool(self._settings.outbox)

    def suffix(self, past: JobHistory) -> str:
        """Of the result's file: ".png"."""
        return Path(past.image_file).suffix if past.image_file else f".{self._settings.format}"

    def put(self, entry: SpoolEntry, past: JobHistory, image: bytes, facts: bytes | None) -> Path:
        """Write the results, safely, and return the path of the facts or else of the image.

        Raises ImageError where the folder cannot be written. Any thread.
        """
        try:
            image_file, facts_file = self._names(entry, past, facts is not None)
            self._write(image_file, image)
            if facts is not None and facts_file is not None:
                self._write(facts_file, facts)
            self._disk.sync(image_file.parent)
        except OSError as problem:
            raise ImageError(f"cannot write {problem.filename}: {problem.strerror}") from None
        if self._archive:
            self._archive.record_filed(entry)
        return facts_file or image_file

    def _names(
        self, entry: SpoolEntry, past: JobHistory, with_facts: bool
    ) -> tuple[Path, Path | None]:
        if past.image_file:
            return Path(past.image_file), Path(past.facts_file) if past.facts_file else None
        folder = Path(self._settings.outbox)
        folder.mkdir(parents=True, exist_ok=True)
        stem = Path(entry.name).stem if entry.inbox else f"{entry.reply}-{entry.job}"
        with self._naming:
            image_file = self._choose(folder / f"{stem}{self.suffix(past)}")
            facts_file = self._choose(image_file.with_suffix(".json")) if with_facts else None
        self._reserve(entry, image_file, facts_file)
        return image_file, facts_file

    def _choose(self, path: Path) -> Path:
        chosen = free_path(path, self._chosen)
        self._chosen.add(str(chosen))
        return chosen

    def _reserve(self, entry: SpoolEntry, image_file: Path, facts_file: Path | None) -> None:
        if self._archive:
            self._archive.reserve_paths(entry, image_file, facts_file).result()

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(self._disk, path, data)
        self._chosen.discard(str(path))  # from now on everybody sees it


class DeliveryDesk(Protocol):
    """What a delivery needs of the server."""

    @property
    def outbox(self) -> Outbox: ...

    def replies_to(self, entry: SpoolEntry) -> bool:
        """Whether results are published."""

    def say(self, entry: SpoolEntry, said: JobStatus) -> None:
        """Tell whoever asked how it goes."""

    def record_failure(self, dead_letter: DeadLetter) -> None:
        """The job failed: this is to be kept of it when it is settled."""

    def finish(self, entry: SpoolEntry, said: JobStatus, results: dict[str, bytes]) -> None:
        """Tell whoever asked how it ended, and what came out: payload by the topic's last word."""


@dataclass(slots=True)
class Delivery:
    """The client of a serving gateway's job: topics and folders."""

    desk: DeliveryDesk
    entry: SpoolEntry
    past: JobHistory = field(default_factory=JobHistory)
    file: str | None = None
    results: dict[str, bytes] = field(default_factory=dict)
    said_at: float = float("-inf")

    def progress(self, report: Report) -> None:
        if now() - self.said_at >= EVERY_S:
            self.said_at = now()
            self.desk.say(self.entry, status(report, "running"))

    def notice(self, job: str, text: str) -> None:
        log.info("%s: %s", self.entry.name, text)
        self.desk.say(self.entry, JobStatus(job=job, state="waiting", error=text))

    def deliver(self, outcome: Outcome) -> None:
        if outcome.image is None or outcome.error:
            return
        outbox = self.desk.outbox
        image = files.encode_file(outcome.image, outbox.suffix(self.past))
        facts = None if outcome.facts is None else as_json(outcome.facts)
        if outbox.wants(self.entry):
            self.file = str(outbox.put(self.entry, self.past, image, facts))
        if self.desk.replies_to(self.entry):
            self.results = {"facts": facts, "image": image} if facts else {"image": image}

    def ended(self, outcome: Outcome) -> None:
        if outcome.error is None:
            log.info("%s: done in %.2f s", self.entry.name, outcome.report.seconds)
        else:
            log.warning("%s: failed: %s", self.entry.name, outcome.error)
            if outcome.mendable:  # else it is no image, and no mending makes it one
                self.desk.record_failure(_dead_letter(self.entry, outcome.report, outcome.error))
        said = status(outcome.report, "failed" if outcome.error else "done", outcome.error)
        results = {} if outcome.error else self.results
        self.desk.finish(self.entry, replace(said, file=self.file), results)


def _dead_letter(entry: SpoolEntry, report: Report, reason: str) -> DeadLetter:
    return make_dead_letter(
        entry,
        reason,
        devices={device: share.tiles for device, share in report.devices.items()},
        failures=[FailedAttempt(**asdict(failure)) for failure in report.failures],
    )
