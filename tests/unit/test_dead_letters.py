"""Dead letters: what is kept of jobs that failed, its bounds, and another try."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fogmqtt.errors import UsageError
from fogmqtt.gateway.jobs.report import Report, TileFailure
from fogmqtt.gateway.storage import dead_letters as dead_module
from fogmqtt.gateway.storage.dead_letters import (
    DeadLetter,
    DeadLetters,
    again,
    announcement,
    dead_letter,
)
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.storage.job_store import JobStore
from fogmqtt.gateway.storage.spool import Entry

ENTRY = Entry(job="j1", name="submit/edges/me", pipeline="gray", reply="me", origin="7/t/d")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[JobStore]:
    made = JobStore(tmp_path / "spool", "mariem", keep_s=100.0)
    yield made
    made.close()


def failed(entry: Entry = ENTRY, reason: str = "boom") -> DeadLetter:
    report = Report(entry.job, entry.name, entry.pipeline)
    report.failures.append(TileFailure(3, 1, "eya", "boom", "x" * 100_000 + "\ud800"))
    return dead_letter(entry, report, reason)


def test_a_failed_job_leaves_its_image_and_its_reasons(archive: JobStore) -> None:
    archive.accept_bytes(ENTRY, b"image").result()
    folder = archive.settle(ENTRY, "boom", failed()).result()
    assert folder is not None
    assert (folder / "image").read_bytes() == b"image"
    (kept,) = archive.dead.all()
    assert (kept.entry, kept.reason, kept.failures[0].device) == (ENTRY, "boom", "eya")
    assert archive.unfinished() == []


def test_what_is_kept_and_announced_of_a_failure_is_bounded() -> None:
    kept = failed(reason="y" * 1_000_000)
    assert len(kept.reason) == 4000
    assert len(kept.failures[0].traceback) < 4010
    assert len(announcement(kept, Path("x"))) < 10_000


def test_a_retried_letter_is_accepted_under_the_next_id_and_once(archive: JobStore) -> None:
    archive.accept_bytes(ENTRY, b"image").result()
    archive.settle(ENTRY, "boom", failed()).result()
    archive.dead.retry("j1")
    (asked,) = archive.dead.asked()
    entry = archive.revive(asked).result()
    assert entry is not None
    assert (entry.job, entry.reply, entry.origin) == ("j1-2", "me", "")
    assert archive.spool.image("j1-2").read_bytes() == b"image"
    assert archive.dead.asked() == archive.dead.all() == []
    assert archive.revive(asked).result() is None, "killed before the request was removed"
    assert [again("j1"), again("j1-2"), again("j1-10")] == ["j1-2", "j1-3", "j1-11"]


def test_the_next_try_has_the_priority_of_the_first(archive: JobStore) -> None:
    entry = msgspec.structs.replace(ENTRY, priority=-1)
    archive.accept_bytes(entry, b"pixels").result()
    archive.settle(entry, "boom", failed(entry)).result()
    archive.dead.retry("j1")
    again = archive.revive(archive.dead.asked()[0]).result()
    assert again is not None
    assert (again.job, again.priority) == ("j1-2", -1)


def test_a_retry_of_what_is_not_there_says_what_is(archive: JobStore) -> None:
    with pytest.raises(UsageError, match=r"no dead letter 'j9' in .*dead; there is none"):
        archive.dead.retry("j9")
    archive.accept_bytes(ENTRY, b"image").result()
    archive.settle(ENTRY, "boom", failed()).result()
    with pytest.raises(UsageError, match="there are: j1"):
        archive.dead.retry("../j1")


def test_the_oldest_letters_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_module, "MAX_LETTERS", 3)
    image = tmp_path / "image"
    image.write_bytes(bytes(10))
    letters = DeadLetters(tmp_path)
    for number in range(5):
        letters.keep(failed(Entry(job=f"j{number}", name="x", pipeline="gray")), image)
    assert [kept.entry.job for kept in letters.all()] == ["j2", "j3", "j4"]
    bounded = DeadLetters(tmp_path, max_bytes=25)
    bounded.keep(failed(Entry(job="j5", name="x", pipeline="gray")), image)
    assert [kept.entry.job for kept in bounded.all()] == ["j4", "j5"]


def test_a_job_that_came_to_a_good_end_after_all_leaves_no_letter(archive: JobStore) -> None:
    """Killed between letter and end, the next life does the job again."""
    archive.accept_bytes(ENTRY, b"image").result()
    archive.dead.keep(failed(), archive.spool.image("j1"))
    archive.settle(ENTRY, None).result()
    assert archive.dead.all() == []


class FullAtTheEnd(DurableFiles):
    full = False

    def commit(self, connection: sqlite3.Connection) -> None:
        if self.full:
            raise _full()
        super().commit(connection)


def _full() -> sqlite3.OperationalError:
    problem = sqlite3.OperationalError("database or disk is full")
    problem.sqlite_errorname = "SQLITE_FULL"
    return problem


def test_an_end_that_a_full_disk_did_not_take_is_written_down_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullAtTheEnd()
    archive = JobStore(tmp_path / "spool", "mariem", keep_s=100.0, disk=disk)
    archive.accept_bytes(ENTRY, b"image").result()
    disk.full = True
    archive.settle(ENTRY, None).result()
    assert "the disk is full; its end is written down when that is over" in caplog.text
    disk.full = False
    archive.catch_up()
    caplog.clear()
    assert archive.unfinished() == []
    archive.close()
    assert not caplog.records


def test_what_a_killed_life_left_of_a_letter_is_swept_at_the_next_start(archive: JobStore) -> None:
    archive.accept_bytes(ENTRY, b"image").result()
    archive.settle(ENTRY, "boom", failed()).result()
    for half in (archive.dead.folder / "j7", archive.dead.waiting / "j8"):
        half.mkdir(parents=True)
        (half / "image").write_bytes(b"half")
    assert archive.unfinished() == []
    assert [one.entry.job for one in archive.dead.all()] == ["j1"]
    assert list(archive.dead.waiting.iterdir()) == []
    assert [path.name for path in archive.dead.folder.iterdir()] == ["j1"]


def test_a_retry_that_was_accepted_before_a_kill_is_not_accepted_again(archive: JobStore) -> None:
    archive.accept_bytes(ENTRY, b"image").result()
    archive.settle(ENTRY, "boom", failed()).result()
    archive.dead.retry("j1")
    archive.accept_bytes(msgspec.structs.replace(ENTRY, job="j1-2"), b"image").result()
    assert [entry.job for entry, _ in archive.unfinished()] == ["j1-2"]
    assert archive.dead.asked() == []
