"""A gateway that is killed at every change of its disk in turn, and started again.

A life is a forked process with a gateway and a broker in memory, working on its own cores. Its
disk ends the process, as `kill -9` would, before, after or in the middle of a given change. What
the customer hears is written down outside; the next life must keep every promise.

Run: python -m tests.crashes FOLDER inbox|reply [--every N] [--when power] [--twice]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from fogmqtt.config import GatewayConfig
from fogmqtt.config import GatewaySettings as Settings
from fogmqtt.gateway import app
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.server import inbox, server
from fogmqtt.gateway.server.server import Server
from fogmqtt.gateway.storage import writer
from fogmqtt.gateway.storage.dead_letters import DeadLetter, DeadLetters
from fogmqtt.gateway.storage.durable_files import Bytes, DurableFiles
from fogmqtt.gateway.storage.journal_db import NAME
from fogmqtt.gateway.storage.spool import Entry
from fogmqtt.transport.base import Deliver, Receipt, Received, Will
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from tests.processes import photo

#: The first stage's result is needed whole by the second.
PIPELINE = "canny low=50 high=150 | dilate ksize=3"
#: Reaches beyond every picture of ours.
HOPELESS = "gray | crop left=5000 width=8 height=8"
WHEN = ("before", "torn", "power", "after")
KILLED = 77
PATIENCE_S = 30


@dataclass
class StoppingDisk(DurableFiles):
    """Ends the process at the `at`th change; 0: never.

    `before` it or `after` it; `torn`: with half of it made; `power`: after it, and all that the
    disk was not waited for is lost: names, rows, tiles.
    """

    at: int = 0
    when: str = "before"
    made: int = 0
    #: What a power cut takes back, newest last: the folder that must be synced first, and how.
    unsafe: list[tuple[Path, Callable[[], object]]] = field(default_factory=list)
    #: The ledger's log, and how much of it is safe.
    log: Path | None = None
    safe_bytes: int = 0

    def create(self, path: Path, data: Bytes) -> None:
        half = memoryview(data)[: len(data) // 2]
        with self._change(lambda: path.write_bytes(half)):
            super().create(path, data)
            self.unsafe.append((path.parent, lambda: path.unlink(missing_ok=True)))

    def copy(self, source: Path, target: Path) -> None:
        with self._change(lambda: target.write_bytes(source.read_bytes()[:100])):
            super().copy(source, target)

    def rename(self, source: Path, target: Path) -> None:
        with self._change():
            super().rename(source, target)
            self.unsafe.append((target.parent, lambda: target.replace(source)))

    def remove(self, path: Path) -> None:
        data = path.read_bytes() if path.exists() else None
        with self._change():
            super().remove(path)
            if data is not None:
                self.unsafe.append((path.parent, lambda: path.write_bytes(data)))

    def link(self, source: Path, target: Path) -> None:
        with self._change():
            super().link(source, target)
            self.unsafe.append((target.parent, lambda: target.unlink(missing_ok=True)))

    def clear(self, folder: Path) -> None:
        inside = {path: path.read_bytes() for path in folder.glob("*")}

        def back() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            for path, data in inside.items():
                path.write_bytes(data)

        with self._change(lambda: [path.unlink() for path in [*inside][:1]]):
            super().clear(folder)
            if inside:
                self.unsafe.append((folder.parent, back))

    def sync(self, path: Path) -> None:
        with self._change():
            super().sync(path)
            self.unsafe = [one for one in self.unsafe if one[0] != path]

    def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
        half = memoryview(data).cast("B")[: memoryview(data).nbytes // 2]
        with self._change(lambda: os.pwrite(descriptor, half, offset)):
            super().write_at(descriptor, data, offset)
            lost = lambda: os.pwrite(descriptor, bytes(len(half)), offset)  # noqa: E731
            self.unsafe.append((Path("tapes"), lost))

    def commit(self, connection: sqlite3.Connection) -> None:
        is_safe = connection.execute("PRAGMA synchronous").fetchone() == (2,)
        self.log = Path(connection.execute("PRAGMA database_list").fetchone()[2] + "-wal")
        with self._change():
            super().commit(connection)
            if is_safe:
                self.safe_bytes = self.log.stat().st_size

    @contextmanager
    def _change(self, torn: Callable[[], object] = lambda: None) -> Iterator[None]:
        self.made += 1
        if self.made != self.at:
            yield
            return
        if self.when == "torn":
            torn()
        if self.when in ("before", "torn"):
            os._exit(KILLED)
        yield
        if self.when == "power":
            self._cut_the_power()
        os._exit(KILLED)

    def _cut_the_power(self) -> None:
        for _, undo in reversed(self.unsafe):
            undo()
        if self.log is not None:
            os.truncate(self.log, self.safe_bytes)
            self.log.with_name(f"{NAME}-shm").unlink(missing_ok=True)


@dataclass
class Case:
    """A folder, an image, and where it goes in."""

    folder: Path
    kind: str
    picture: bytes = field(
        default_factory=lambda: cv2.imencode(".png", photo(96, 120))[1].tobytes()
    )

    @property
    def config(self) -> GatewayConfig:
        at = str(self.folder)
        settings = Settings(
            local="always",
            local_after=0.0,
            inbox=f"{at}/inbox" if self.kind == "inbox" else "",
            outbox=f"{at}/outbox" if self.kind == "inbox" else "",
            spool=f"{at}/spool",
        )
        pipelines = {"edges": HOPELESS if self.kind == "dead" else f"gray | {PIPELINE}"}
        return GatewayConfig(gateway=settings, pipelines=pipelines, tiles="grid 2x2", exact=False)

    def begin(self) -> None:
        for name in ("inbox", "heard"):
            (self.folder / name).mkdir()
        if self.kind == "inbox":
            (self.folder / "inbox" / "in.png").write_bytes(self.picture)
        if self.kind == "retry":
            self._ask_for_another_try()

    def _ask_for_another_try(self) -> None:
        image = self.folder / "image"
        image.write_bytes(self.picture)
        entry = Entry(job="j1", name="in.png", pipeline=f"gray | {PIPELINE}", reply="me")
        letters = DeadLetters(self.folder / "spool")
        (self.folder / "spool").mkdir()
        letters.keep(
            DeadLetter(entry=entry, reason="", failed_at=1.0, devices={}, failures=[]), image
        )
        letters.retry("j1")

    def note(self, what: str, data: bytes = b"") -> None:
        """Write something down that no kill takes back."""
        path = self.folder / "heard" / f"{time.monotonic_ns()}-{what}"
        path.with_suffix(".part").write_bytes(data)
        path.with_suffix(".part").rename(path)

    def heard(self, what: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.folder / "heard").glob(f"*-{what}"))]

    def notes(self) -> list[Path]:
        spool = self.folder / "spool"
        # In this order: a letter is taken away after its job is accepted.
        return [*sorted(spool.glob("retry/j*")), *sorted(spool.glob("j*"))]

    def expected(self) -> np.ndarray:
        colour = cv2.imdecode(np.frombuffer(self.picture, np.uint8), cv2.IMREAD_COLOR)
        gray = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
        return cv2.dilate(cv2.Canny(gray, 50, 150), np.ones((3, 3), np.uint8))

    def tiles(self) -> set[str]:
        """What the ledger says is finished; of a copy, so that ours changes nothing."""
        with tempfile.TemporaryDirectory() as copy:
            for path in (self.folder / "spool").glob(f"{NAME}*"):
                shutil.copy(path, copy)
            if not (Path(copy) / NAME).exists():
                return set()
            ledger = sqlite3.connect(Path(copy) / NAME)
            try:
                rows = ledger.execute("SELECT position, tile FROM tile JOIN stage ON token=stage")
                return {f"{position}-{tile}" for position, tile in rows}
            except sqlite3.OperationalError:
                return set()  # killed before it had its tables
            finally:
                ledger.close()


def live(case: Case, number: int, disk: StoppingDisk) -> None:
    """One life of a gateway: it ends when everything is done, or at its disk's hands."""
    signal.alarm(PATIENCE_S)
    _hurry(case)
    broker = MemoryBroker()
    customer = MemoryTransport(broker, "customer", lambda event: _hear(case, event))
    customer.subscribe("fog/v1/replies/#")
    customer.start()

    def connect(deliver: Deliver, will: Will) -> MemoryTransport:
        return _Noting(case, broker, deliver, will)

    serving = Server(case.config, connect, disk)
    serving.start()
    if case.kind in ("reply", "dead") and not case.heard("ack"):
        receipt = Receipt(0, 1, is_repeated=number > 1)
        serving.gateway.loop.deliver(
            Received("fog/v1/submit/edges/me", case.picture, False, receipt)
        )
    serving.gateway.periodic_tasks.append(lambda moment: _look(case, serving, moment))
    serving.run()
    serving.close()


class _Noting(MemoryTransport):
    """Notes what is acknowledged: the broker would send anything else again."""

    def __init__(self, case: Case, broker: MemoryBroker, deliver: Deliver, will: Will) -> None:
        super().__init__(broker, "mariem", deliver, will=will)
        self.case = case

    def acknowledge(self, receipt: Receipt) -> None:
        self.case.note("ack")


def _hurry(case: Case) -> None:
    app.SETTLE_S = inbox.QUIET_S = 0.0
    server.LOOK_S = 0.005
    writer.GATHER_S = 0.002
    done = stage_run.do_tile

    def noted(run: stage_run.StageRun, tile: stage_run.Tile) -> object:
        case.note("tile", f"{run.key.split('.')[1]}-{tile.index}".encode())
        return done(run, tile)

    stage_run.do_tile = noted  # type: ignore[assignment]


def _hear(case: Case, event: object) -> None:
    if isinstance(event, Received):
        leaf = event.topic.split("/")[-1]
        state = json.loads(event.payload)["state"] if leaf == "status" else leaf
        case.note(state, event.payload)


def _look(case: Case, serving: Server, moment: float) -> float:
    submits = case.kind in ("reply", "dead")
    taken = case.heard("ack") if submits else not _files(case.folder / "inbox")
    if taken and not case.notes() and serving.gateway.conductor.idle:
        serving.gateway.stop()
    return moment + 0.005


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def forked(case: Case, number: int, disk: StoppingDisk) -> tuple[int, int]:
    """A life's exit code, and how many changes its disk saw where it came to its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            live(case, number, disk)
            os.write(writing, str(disk.made).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        made = int(said.read() or b"0")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), made


def check(case: Case, finished: set[str], before: int) -> None:
    """The promises, after the last life; `finished` and `before` are from the kill."""
    assert not case.notes(), f"left in the spool: {case.notes()}"
    parts = [path for path in case.folder.rglob("*.part") if path.parent.name != "heard"]
    assert not parts, f"left behind: {parts}"
    ledger = sqlite3.connect(case.folder / "spool" / NAME)
    ended = ledger.execute("SELECT ended_at IS NOT NULL, error FROM job").fetchall()
    rests = ledger.execute("SELECT (SELECT count(*) FROM tile), (SELECT count(*) FROM stage)")
    assert rests.fetchone() == (0, 0)
    ledger.close()
    errors = {error for done, error in ended if done}
    assert all(done for done, _ in ended), ended
    assert len(ended) <= 1, ended
    assert all((error is None) == (case.kind != "dead") for error in errors), errors
    again = finished & {data.decode() for data in case.heard("tile")[before:]}
    assert not again, f"done again: {again}"
    checks = {"inbox": _check_inbox, "dead": _check_dead}
    checks.get(case.kind, _check_reply)(case)


def _check_inbox(case: Case) -> None:
    assert _files(case.folder / "outbox") == ["in.png"]
    result = cv2.imread(str(case.folder / "outbox" / "in.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(result, case.expected())
    assert _files(case.folder / "inbox") == []
    assert (case.folder / "inbox" / "done" / "in.png").read_bytes() == case.picture
    assert _files(case.folder / "inbox" / "done") == ["in.png"]
    assert not (case.folder / "inbox" / "failed").exists()


def _check_reply(case: Case) -> None:
    images, done = case.heard("image"), case.heard("done")
    assert len(images) in (1, 2), f"{len(images)} images"
    assert len({json.loads(one)["job"] for one in done}) == 1, done
    assert not case.heard("failed")
    for one in images:
        result = cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(result, case.expected())


def _check_dead(case: Case) -> None:
    """One letter, whole, and whoever asked was told why."""
    failed = case.heard("failed")
    assert len({json.loads(one)["job"] for one in failed}) == 1, failed
    assert not case.heard("done")
    (letter,) = DeadLetters(case.folder / "spool").all()
    folder = case.folder / "spool" / "dead" / letter.entry.job
    assert (folder / "image").read_bytes() == case.picture
    assert "crop" in letter.reason
    assert [path.name for path in (case.folder / "spool" / "dead").iterdir()] == [folder.name]


def kills(
    folder: Path, kind: str, step: int = 1, ways: Sequence[str] = WHEN, *, twice: bool = False
) -> Iterator[str]:
    """Kill a life at every `step`th change, in turn in these ways; a line for each survived."""
    for at in count(1, step):
        when = ways[at // step % len(ways)]
        case = Case(Path(tempfile.mkdtemp(dir=folder)), kind)
        case.begin()
        code, made = forked(case, 1, StoppingDisk(at, when))
        if code == 0:
            check(case, set(), 0)
            yield f"{kind}: all of {made} changes"
            return
        assert code == KILLED, f"{kind} {at} {when}: {code}"
        if twice:
            forked(case, 2, StoppingDisk(1 + at * 7 % 23, WHEN[at % len(WHEN)]))
        # A power cut takes pixels that the ledger knows of; their digests tell.
        finished = set() if when == "power" else case.tiles()
        before = len(case.heard("tile"))
        code, _ = forked(case, 3, StoppingDisk())
        assert code == 0, f"{kind} {at} {when}: the next life ended with {code}"
        try:
            check(case, finished, before)
        except AssertionError as problem:
            raise AssertionError(f"{kind}, killed {when} change {at}: {problem}") from problem
        shutil.rmtree(case.folder)
        yield f"{kind}: killed {when} change {at}, {len(finished)} tiles were finished"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=("inbox", "reply", "dead", "retry"))
    parser.add_argument("--every", type=int, default=1, help="kill at every Nth change")
    parser.add_argument("--when", choices=WHEN, action="append", help="default: all, in turn")
    parser.add_argument("--twice", action="store_true", help="kill the next life, too")
    options = parser.parse_args()
    for line in kills(
        options.folder, options.kind, options.every, options.when or WHEN, twice=options.twice
    ):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
