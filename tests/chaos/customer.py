"""Who submits images and writes down all that is heard of them; never harmed itself."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fogmqtt.errors import NotConnected
from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Received
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.messages import Accepted, Decoder, Failure, FromDevice, Rejected, Result, TileTask
from tests.chaos.schedule import BROKEN_FILE, PLANTED, Job
from tests.chaos.unruly import MARK
from tests.processes import photo

_ANSWERS: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)
_TASKS: Decoder[TileTask] = Decoder(TileTask)
#: Without a word for so long, an image is submitted again: a broker that was killed forgot it.
#: After each time twice as long: what waits in a session is a job of its own each time.
_SILENCE_S = 10.0


@dataclass
class Heard:
    """What is known of one submission."""

    job: Job
    #: When it was published.
    published: list[float] = field(default_factory=list)
    #: (job's id, state, error) in the order heard.
    said: list[tuple[str, str, str]] = field(default_factory=list)
    heard_at: float = 0.0
    images: list[bytes] = field(default_factory=list)
    ended_at: float = 0.0


@dataclass
class Customer:
    """Any thread."""

    url: str
    folder: Path
    heard: dict[str, Heard] = field(default_factory=dict)
    #: Leases by (job, tile), results by (job, tile): beyond the first it is a retry or a duplicate.
    sent: Counter[tuple[str, int]] = field(default_factory=Counter)
    back: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._lately: deque[Received] = deque(maxlen=30)
        self._transport = PahoTransport(Link(self.url, "customer", session_s=60), self._deliver)
        for topic in ("replies/#", "devices/+/tiles", "gateways/+/results/+"):
            self._transport.subscribe(f"fog/v1/{topic}")

    @contextmanager
    def listening(self) -> Iterator[Customer]:
        self._transport.start()
        try:
            yield self
        finally:
            self._transport.close()

    def submit(self, job: Job) -> None:
        """Publish it now, or as soon as there is a broker."""
        self.heard[job.reply] = Heard(job)
        self._publish(self.heard[job.reply])

    def insist(self) -> None:
        """Publish again what nobody said a word about."""
        for one in tuple(self.heard.values()):
            last = max(one.heard_at, *one.published, 0.0)
            patience_s = _SILENCE_S * 2 ** max(0, len(one.published) - 1)
            if not one.said and time.monotonic() - last > patience_s:
                self._publish(one)

    def echo(self) -> None:
        """Repeat the newest tiles and results, as somebody who recorded them could."""
        with self._lock:
            lately = tuple(self._lately)
        with suppress(NotConnected):
            for message in reversed(lately):
                self._transport.publish(message.topic, message.payload)

    @property
    def retries(self) -> int:
        return sum(count - 1 for count in self.sent.values())

    @property
    def duplicates(self) -> int:
        return sum(count - 1 for count in self.back.values())

    def _publish(self, one: Heard) -> None:
        with suppress(NotConnected):
            topic = f"fog/v1/submit/{one.job.pipeline}/{one.job.reply}"
            self._transport.publish(topic, file_of(one.job))
            one.published.append(time.monotonic())

    def _deliver(self, event: object) -> None:
        if isinstance(event, Received):
            with self._lock:
                self._take(event)

    def _take(self, message: Received) -> None:
        levels = message.topic.split("/")[2:]
        match levels:
            case ["replies", reply, leaf] if reply in self.heard:
                self._note(self.heard[reply], leaf, message.payload)
            case ["devices", _, "tiles"]:
                self._lately.append(message)
                with suppress(Exception):  # corrupt bytes travel here, too
                    task = _TASKS.decode(message.payload)
                    self.sent[task.job, task.tile] += 1
            case ["gateways", _, "results", _]:
                self._count_back(message)
            case _:
                pass

    def _count_back(self, message: Received) -> None:
        with suppress(Exception):
            answer = _ANSWERS.decode(message.payload)
            if isinstance(answer, Result):
                self._lately.append(message)
                self.back[answer.job, answer.tile] += 1

    def _note(self, one: Heard, leaf: str, payload: bytes) -> None:
        one.heard_at = time.monotonic()
        if leaf == "image":
            one.images.append(payload)
        if leaf != "status":
            return
        said = json.loads(payload)
        one.said.append((said["job"], said["state"], said.get("error") or ""))
        if said["state"] in ("done", "failed"):
            one.ended_at = time.monotonic()


def picture_of(job: Job) -> Image:
    """What a job's image shows; marked for the operators that misbehave."""
    image = photo(job.height, job.width, job.seed)
    if job.pipeline in PLANTED or job.pipeline in ("flaky", "stutter"):
        for column, value in enumerate(MARK):
            image[0, column] = value
    return image


def file_of(job: Job) -> bytes:
    data = cv2.imencode(".png", picture_of(job))[1].tobytes()
    return data[: len(data) // 2] if job.planted == BROKEN_FILE else data


def expected_of(job: Job) -> Image:
    """What OpenCV makes of a job's image."""
    gray = cv2.cvtColor(picture_of(job), cv2.COLOR_BGR2GRAY)
    match job.pipeline:
        case "edges":
            return cv2.Canny(gray, 50, 150)
        case "twice":
            return cv2.dilate(cv2.Canny(gray, 50, 150), np.ones((3, 3), np.uint8))
        case "soft":
            return cv2.medianBlur(gray, 5)
        case "levels":
            return cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    return 255 - gray


def ledger_of(spool: Path) -> dict[str, tuple[str, bool, str]]:
    """What the gateway's own books say: reply, whether it ended, and the error, by job."""
    path = spool / "ledger.sqlite3"
    if not path.exists():
        return {}
    with suppress(sqlite3.Error):
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)
        try:
            rows = database.execute("SELECT id, reply, ended_at, error FROM job").fetchall()
        finally:
            database.close()
        return {row[0]: (row[1], row[2] is not None, row[3] or "") for row in rows}
    return {}
