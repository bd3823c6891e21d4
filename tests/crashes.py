"""A gateway that is killed at each change on its disk in turn, and restarted.

A run is a forked process with a gateway and a broker in memory; the gateway computes the tiles.
Its disk ends the process like `kill -9`, before, after or in the middle of a given change. What
the client receives is recorded outside the spool; the next run must keep every promise.

Run: python -m tests.crashes FOLDER inbox|reply [--every N] [--when power] [--twice]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fogmqtt.config import GatewayConfig
from fogmqtt.config import GatewaySettings as Settings
from fogmqtt.core.geometry import Tile
from fogmqtt.gateway.devices import settling
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.gateway.server import server as server_module
from fogmqtt.gateway.server.server import Server
from fogmqtt.gateway.storage import writer
from fogmqtt.gateway.storage.api import Bytes, DeadLetter, SpoolEntry
from fogmqtt.gateway.storage.dead_letters import DeadLetters
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.storage.journal_db import NAME
from fogmqtt.transport.base import Deliver, Receipt, Received, Will
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from fogmqtt.wire.messages import TileTask
from tests.processes import photo

#: The first stage's result is needed whole by the second.
PIPELINE = "canny low=50 high=150 | dilate ksize=3"
#: The crop is outside of the image, so that the job fails.
FAILING = "gray | crop left=5000 width=8 height=8"
WHEN = ("before", "torn", "power", "after")
KILLED = 77
RUN_LIMIT_S = 120


def real(path: Path) -> Path:
    """Return a path that still leads there when the folder is not held open any more."""
    return Path(os.path.realpath(path.parent)) / path.name


@dataclass
class StoppingDisk(DurableFiles):
    """Ends the process at the `at`th change; 0: never.

    `before` it or `after` it; `torn`: with half of it made; `power`: after it, and everything
    that was not synced is lost: names, rows, tiles.
    """

    at: int = 0
    when: str = "before"
    made: int = 0
    #: How a power cut undoes each change, newest last, until its folder is synced.
    unsafe: list[tuple[Path, Callable[[], object]]] = field(default_factory=list)
    #: The journal database's log file, and its synced bytes.
    log: Path | None = None
    safe_bytes: int = 0

    def create(self, path: Path, data: Bytes) -> None:
        path = real(path)
        half = memoryview(data)[: len(data) // 2]
        with self._change(lambda: path.write_bytes(half)):
            super().create(path, data)
            self.unsafe.append((path.parent, lambda: path.unlink(missing_ok=True)))

    def copy(self, source: Path, target: Path) -> None:
        source, target = real(source), real(target)
        with self._change(lambda: target.write_bytes(source.read_bytes()[:100])):
            super().copy(source, target)

    def rename(self, source: Path, target: Path) -> None:
        source, target = real(source), real(target)
        with self._change():
            super().rename(source, target)
            self.unsafe.append((target.parent, lambda: target.replace(source)))

    def remove(self, path: Path) -> None:
        path = real(path)
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

        def restore() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            for path, data in inside.items():
                path.write_bytes(data)

        with self._change(lambda: [path.unlink() for path in [*inside][:1]]):
            super().clear(folder)
            if inside:
                self.unsafe.append((folder.parent, restore))

    def sync(self, path: Path) -> None:
        path = Path(os.path.realpath(path)) if path.is_dir() else real(path)
        with self._change():
            super().sync(path)
            self.unsafe = [one for one in self.unsafe if one[0] != path]

    def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
        half = memoryview(data).cast("B")[: memoryview(data).nbytes // 2]
        with self._change(lambda: os.pwrite(descriptor, half, offset)):
            super().write_at(descriptor, data, offset)
            undo = lambda: os.pwrite(descriptor, bytes(len(half)), offset)  # noqa: E731
            self.unsafe.append((Path("tile files"), undo))

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
    """A folder, an image, and the way by which it is submitted."""

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
        pipelines = {"edges": FAILING if self.kind == "dead" else f"gray | {PIPELINE}"}
        return GatewayConfig(gateway=settings, pipelines=pipelines, tiles="grid 2x2", exact=False)

    def prepare(self) -> None:
        for name in ("inbox", "recorded"):
            (self.folder / name).mkdir()
        if self.kind == "inbox":
            (self.folder / "inbox" / "in.png").write_bytes(self.picture)
        if self.kind == "retry":
            self._request_retry()

    def _request_retry(self) -> None:
        image = self.folder / "image"
        image.write_bytes(self.picture)
        entry = SpoolEntry(job="j1", name="in.png", pipeline=f"gray | {PIPELINE}", reply="me")
        dead_letters = DeadLetters(self.folder / "spool")
        (self.folder / "spool").mkdir()
        dead_letters.store(
            DeadLetter(entry=entry, reason="", failed_at=1.0, devices={}, failures=[]), image
        )
        dead_letters.request_retry("j1")

    def record(self, what: str, data: bytes = b"") -> None:
        """Record an event so that no kill undoes it."""
        path = self.folder / "recorded" / f"{time.monotonic_ns()}-{what}"
        path.with_suffix(".part").write_bytes(data)
        path.with_suffix(".part").rename(path)

    def recorded(self, what: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.folder / "recorded").glob(f"*-{what}"))]

    def jobs(self) -> list[Path]:
        spool = self.folder / "spool"
        # In this order, because a retry request is removed after its job is accepted.
        return [*sorted(spool.glob("retry/j*")), *sorted(spool.glob("j*"))]

    def expected(self) -> np.ndarray:
        colour = cv2.imdecode(np.frombuffer(self.picture, np.uint8), cv2.IMREAD_COLOR)
        gray = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
        return cv2.dilate(cv2.Canny(gray, 50, 150), np.ones((3, 3), np.uint8))

    def tiles(self) -> set[str]:
        """The finished tiles in a copy of the journal database, so that reading changes nothing."""
        with tempfile.TemporaryDirectory() as copy:
            for path in (self.folder / "spool").glob(f"{NAME}*"):
                shutil.copy(path, copy)
            if not (Path(copy) / NAME).exists():
                return set()
            database = sqlite3.connect(Path(copy) / NAME)
            try:
                rows = database.execute("SELECT position, tile FROM tile JOIN stage ON token=stage")
                return {f"{position}-{tile}" for position, tile in rows}
            except sqlite3.OperationalError:
                return set()  # killed before the tables were created
            finally:
                database.close()


def run_gateway(case: Case, number: int, disk: StoppingDisk) -> None:
    """One run of a gateway: it ends when everything is done, or when its disk ends it."""
    signal.alarm(RUN_LIMIT_S)
    _shorten_delays(case)
    asyncio.run(_run_gateway(case, number, disk))


async def _run_gateway(case: Case, number: int, disk: StoppingDisk) -> None:
    broker = MemoryBroker()
    client = MemoryTransport(broker, "client", lambda event: _record_reply(case, event))
    client.subscribe("fog/v1/replies/#")
    client.start()
    delivers: list[Deliver] = []

    def connect(deliver: Deliver, will: Will) -> MemoryTransport:
        delivers.append(deliver)
        return _RecordingTransport(case, broker, deliver, will)

    server = Server(case.config, connect, disk)
    serving = asyncio.get_running_loop().create_task(server.run())
    up = asyncio.get_running_loop().create_task(server.gateway.link.up())
    await asyncio.wait([serving, up], return_when=asyncio.FIRST_COMPLETED)
    if case.kind in ("reply", "dead") and not case.recorded("ack"):
        receipt = Receipt(0, 1, is_repeated=number > 1)
        delivers[0](Received("fog/v1/submit/edges/me", case.picture, False, receipt))
    while not serving.done() and not _is_done(case, server):
        await asyncio.sleep(0.005)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


class _RecordingTransport(MemoryTransport):
    """Records acknowledgements: a broker sends every other message again."""

    def __init__(self, case: Case, broker: MemoryBroker, deliver: Deliver, will: Will) -> None:
        super().__init__(broker, "mariem", deliver, will=will)
        self.case = case

    def acknowledge(self, receipt: Receipt) -> None:
        self.case.record("ack")


def _shorten_delays(case: Case) -> None:
    settling.SETTLE_S = 0.0
    server_module.RETRY_S = 0.005
    writer.GATHER_S = 0.002
    cut = stage_run.make_task

    def recording(run: StageRun, tile: Tile, **options: Any) -> TileTask:
        case.record("tile", f"{run.key.split('.')[1]}-{tile.index}".encode())
        return cut(run, tile, **options)

    stage_run.make_task = recording


def _record_reply(case: Case, event: object) -> None:
    if isinstance(event, Received):
        leaf = event.topic.split("/")[-1]
        state = json.loads(event.payload)["state"] if leaf == "status" else leaf
        case.record(state, event.payload)


def _is_done(case: Case, server: Server) -> bool:
    submits = case.kind in ("reply", "dead")
    taken = case.recorded("ack") if submits else not _files(case.folder / "inbox")
    return bool(taken) and not case.jobs() and not server.gateway.jobs()


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def forked(case: Case, number: int, disk: StoppingDisk) -> tuple[int, int]:
    """A run's exit code, and the number of changes on its disk if it was not killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run_gateway(case, number, disk)
            os.write(writing, str(disk.made).encode())
            code = 0
        finally:
            if code:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        made = int(pipe.read() or b"0")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), made


def check(case: Case, finished: set[str], before: int) -> None:
    """Check the promises after the last run; `finished` and `before` are from the kill."""
    assert not case.jobs(), f"left in the spool: {case.jobs()}"
    parts = [path for path in case.folder.rglob("*.part") if path.parent.name != "recorded"]
    assert not parts, f"left behind: {parts}"
    database = sqlite3.connect(case.folder / "spool" / NAME)
    ended = database.execute("SELECT ended_at IS NOT NULL, error FROM job").fetchall()
    counts = database.execute("SELECT (SELECT count(*) FROM tile), (SELECT count(*) FROM stage)")
    assert counts.fetchone() == (0, 0)
    database.close()
    errors = {error for done, error in ended if done}
    assert all(done for done, _ in ended), ended
    assert len(ended) <= 1, ended
    assert all((error is None) == (case.kind != "dead") for error in errors), errors
    again = finished & {data.decode() for data in case.recorded("tile")[before:]}
    assert not again, f"repeated: {again}"
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
    images, done = case.recorded("image"), case.recorded("done")
    assert len(images) in (1, 2), f"{len(images)} images"
    assert len({json.loads(one)["job"] for one in done}) == 1, done
    assert not case.recorded("failed")
    for one in images:
        result = cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(result, case.expected())


def _check_dead(case: Case) -> None:
    """One complete dead letter, and the client received the reason."""
    failed = case.recorded("failed")
    assert len({json.loads(one)["job"] for one in failed}) == 1, failed
    assert not case.recorded("done")
    (dead_letter,) = DeadLetters(case.folder / "spool").all()
    folder = case.folder / "spool" / "dead" / dead_letter.entry.job
    assert (folder / "image").read_bytes() == case.picture
    assert "crop" in dead_letter.reason
    assert [path.name for path in (case.folder / "spool" / "dead").iterdir()] == [folder.name]


def kills(
    folder: Path, kind: str, step: int = 1, ways: Sequence[str] = WHEN, *, twice: bool = False
) -> Iterator[str]:
    """Kill a run at every `step`th change, in turn in these ways; yields a line for each."""
    for at in count(1, step):
        when = ways[at // step % len(ways)]
        case = Case(Path(tempfile.mkdtemp(dir=folder)), kind)
        case.prepare()
        code, made = forked(case, 1, StoppingDisk(at, when))
        if code == 0:
            check(case, set(), 0)
            yield f"{kind}: all of {made} changes"
            return
        assert code == KILLED, f"{kind} {at} {when}: {code}"
        if twice:
            forked(case, 2, StoppingDisk(1 + at * 7 % 23, WHEN[at % len(WHEN)]))
        # A power cut may lose results that the database has rows for; their digests differ then.
        finished = set() if when == "power" else case.tiles()
        before = len(case.recorded("tile"))
        code, _ = forked(case, 3, StoppingDisk())
        assert code == 0, f"{kind} {at} {when}: the next run ended with {code}"
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
    parser.add_argument("--twice", action="store_true", help="kill the next run, too")
    options = parser.parse_args()
    for line in kills(
        options.folder, options.kind, options.every, options.when or WHEN, twice=options.twice
    ):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
