"""The spool's writer thread: it survives errors, and nobody waits for a thread that has ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fogmqtt.core.geometry import Grid, cut
from fogmqtt.errors import FogError
from fogmqtt.gateway.storage.api import Bytes, JobHistory, SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.storage.job_store import DiskJobStore
from fogmqtt.gateway.storage.journal_db import JournalEntry, TileKept
from fogmqtt.gateway.storage.writer import SpoolWriter

#: Seconds after which a future counts as never completed.
LIMIT_S = 10

TILES = cut((60, 90), Grid(columns=3, rows=2), halo=2, align=1)


class Journal:
    """Writes entries to a list; raises `error` once."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.written: list[JournalEntry] = []

    def write(self, entries: Sequence[JournalEntry]) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.written.extend(entries)


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def writer(journal: Journal) -> Iterator[SpoolWriter]:
    made = SpoolWriter(journal.write)
    yield made
    made.close()


def kept(tile: int) -> TileKept:
    return TileKept("j1", "t", tile, "eya", bytes(10))


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [MemoryError(), ValueError("a bug")])
def test_an_error_of_a_batch_costs_only_its_entries(
    writer: SpoolWriter, journal: Journal, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    journal.error = error
    writer.append(kept(1))
    assert writer.submit(lambda: "done").result(LIMIT_S) == "done"
    writer.append(kept(2))
    writer.submit(lambda: None).result(LIMIT_S)
    assert journal.written == [kept(2)]
    assert "journal entries are dropped" in caplog.text


def test_dropped_entries_no_longer_count_as_waiting(
    writer: SpoolWriter, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fogmqtt.gateway.storage.writer.MAX_WAITING_BYTES", 10)
    journal.error = MemoryError()
    writer.append(kept(1))
    writer.submit(lambda: None).result(LIMIT_S)
    writer.append(kept(2))
    writer.submit(lambda: None).result(LIMIT_S)
    assert journal.written == [kept(2)]


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_an_error_of_requested_work_fails_only_its_future(
    writer: SpoolWriter, error: Exception
) -> None:
    failed, later = writer.submit(lambda: fail(error)), writer.submit(lambda: "done")
    assert failed.exception(LIMIT_S) is error
    assert later.result(LIMIT_S) == "done"


def test_when_the_thread_ends_waiting_and_later_futures_fail(
    writer: SpoolWriter, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    writer.submit(gate.wait)
    ending = writer.submit(lambda: fail(SystemExit()))
    waiting = writer.submit(lambda: "never")
    gate.set()
    assert isinstance(ending.exception(LIMIT_S), SystemExit)
    for future in (waiting, writer.submit(lambda: "never")):
        with pytest.raises(FogError, match="writer has ended, so nothing is stored; restart"):
            future.result(LIMIT_S)
    assert "the spool's writer thread has ended" in caplog.text


def test_work_that_is_requested_after_the_close_fails() -> None:
    writer = SpoolWriter(lambda entries: None)
    writer.close()
    with pytest.raises(FogError, match="writer has ended"):
        writer.submit(lambda: "never").result(LIMIT_S)


def test_requested_work_is_done_even_if_the_waiting_task_is_cancelled(writer: SpoolWriter) -> None:
    gate, done = threading.Event(), threading.Event()

    async def cancel_while_waiting() -> None:
        writer.submit(gate.wait)
        task = asyncio.ensure_future(asyncio.wrap_future(writer.submit(done.set)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_while_waiting())
    gate.set()
    assert writer.submit(lambda: "done").result(LIMIT_S) == "done"
    assert done.is_set()


class OutOfMemory(DurableFiles):
    """Raises MemoryError where tiles are written."""

    def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
        raise MemoryError


def test_images_are_accepted_after_the_writer_ran_out_of_memory(tmp_path: Path) -> None:
    store = DiskJobStore(tmp_path / "spool", "mariem", keep_s=100.0, disk=OutOfMemory())
    first, second = (SpoolEntry(job=job, name="in.png", pipeline="gray") for job in ("j1", "j2"))
    store.accept_bytes(first, b"image").result(LIMIT_S)
    journal = store.open_journal("j1", JobHistory())
    journal.begin_stage(0, "kind", TILES)
    journal.keep_tile(0, 0, "eya", b"result")
    store.accept_bytes(second, b"image").result(LIMIT_S)
    assert [entry.job for entry, _ in store.unfinished_jobs().result(LIMIT_S)] == ["j1", "j2"]
    store.close()
