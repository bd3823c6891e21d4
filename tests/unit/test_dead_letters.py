"""Dead letters: what is stored of failed jobs, its limits, and retries."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fogmqtt.errors import UsageError
from fogmqtt.gateway.storage import dead_letters as module
from fogmqtt.gateway.storage.api import DeadLetter, FailedAttempt, SpoolEntry
from fogmqtt.gateway.storage.dead_letters import (
    DeadLetters,
    announcement,
    make_dead_letter,
    retry_id,
)
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.storage.job_store import DiskJobStore

ENTRY = SpoolEntry(job="j1", name="submit/edges/me", pipeline="gray", reply="me", origin="7/t/d")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskJobStore]:
    made = DiskJobStore(tmp_path / "spool", "mariem", keep_s=100.0)
    yield made
    made.close()


@pytest.fixture
def dead_letters(tmp_path: Path) -> DeadLetters:
    return DeadLetters(tmp_path / "spool")


def failed(entry: SpoolEntry = ENTRY, reason: str = "boom") -> DeadLetter:
    failure = FailedAttempt(3, 1, "eya", "boom", "x" * 100_000 + "\ud800")
    return make_dead_letter(entry, reason, devices={"eya": 2}, failures=[failure])


def test_a_dead_letter_has_the_image_and_the_reasons(
    store: DiskJobStore, dead_letters: DeadLetters
) -> None:
    store.accept_bytes(ENTRY, b"image").result()
    folder = store.finish(ENTRY, "boom", failed()).result().letter
    assert folder is not None
    assert (folder / "image").read_bytes() == b"image"
    (kept,) = dead_letters.all()
    assert (kept.entry, kept.reason, kept.failures[0].device) == (ENTRY, "boom", "eya")
    assert store.unfinished_jobs().result() == []


def test_the_texts_of_a_dead_letter_and_its_announcement_are_limited() -> None:
    kept = failed(reason="y" * 1_000_000)
    assert len(kept.reason) == 4000
    assert len(kept.failures[0].traceback) < 4010
    assert len(announcement(kept, Path("x"))) < 10_000


def test_a_retry_is_accepted_under_the_next_id_and_only_once(
    store: DiskJobStore, dead_letters: DeadLetters
) -> None:
    store.accept_bytes(ENTRY, b"image").result()
    store.finish(ENTRY, "boom", failed()).result()
    dead_letters.request_retry("j1")
    (asked,) = store.retry_requests().result()
    entry = store.accept_retry(asked).result()
    assert entry is not None
    assert (entry.job, entry.reply, entry.origin) == ("j1-2", "me", "")
    assert store.image_path("j1-2").read_bytes() == b"image"
    assert store.retry_requests().result() == dead_letters.all() == []
    assert store.accept_retry(asked).result() is None, (
        "the gateway was killed before it removed the request"
    )
    assert [retry_id("j1"), retry_id("j1-2"), retry_id("j1-10")] == ["j1-2", "j1-3", "j1-11"]


def test_a_retry_has_the_priority_of_the_first_attempt(
    store: DiskJobStore, dead_letters: DeadLetters
) -> None:
    entry = msgspec.structs.replace(ENTRY, priority=-1)
    store.accept_bytes(entry, b"pixels").result()
    store.finish(entry, "boom", failed(entry)).result()
    dead_letters.request_retry("j1")
    again = store.accept_retry(store.retry_requests().result()[0]).result()
    assert again is not None
    assert (again.job, again.priority) == ("j1-2", -1)


def test_a_request_for_an_unknown_job_names_the_known_ones(
    store: DiskJobStore, dead_letters: DeadLetters
) -> None:
    with pytest.raises(UsageError, match=r"no dead letter 'j9' in .*dead; there is none"):
        dead_letters.request_retry("j9")
    store.accept_bytes(ENTRY, b"image").result()
    store.finish(ENTRY, "boom", failed()).result()
    with pytest.raises(UsageError, match="there are: j1"):
        dead_letters.request_retry("../j1")


def test_the_oldest_dead_letters_are_removed_above_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LETTERS", 3)
    image = tmp_path / "image"
    image.write_bytes(bytes(10))
    letters = DeadLetters(tmp_path)
    for number in range(5):
        letters.store(failed(SpoolEntry(job=f"j{number}", name="x", pipeline="gray")), image)
    assert [kept.entry.job for kept in letters.all()] == ["j2", "j3", "j4"]
    bounded = DeadLetters(tmp_path, max_bytes=25)
    bounded.store(failed(SpoolEntry(job="j5", name="x", pipeline="gray")), image)
    assert [kept.entry.job for kept in bounded.all()] == ["j4", "j5"]


def test_a_job_that_succeeds_after_a_restart_leaves_no_dead_letter(
    store: DiskJobStore, dead_letters: DeadLetters
) -> None:
    """A gateway that is killed between dead letter and end repeats the job."""
    store.accept_bytes(ENTRY, b"image").result()
    dead_letters.store(failed(), store.image_path("j1"))
    store.finish(ENTRY, None).result()
    assert dead_letters.all() == []


class FullAtCommit(DurableFiles):
    full = False

    def commit(self, connection: sqlite3.Connection) -> None:
        if self.full:
            raise _full()
        super().commit(connection)


def _full() -> sqlite3.OperationalError:
    problem = sqlite3.OperationalError("database or disk is full")
    problem.sqlite_errorname = "SQLITE_FULL"
    return problem


def test_an_end_that_a_full_disk_refused_is_recorded_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullAtCommit()
    store = DiskJobStore(tmp_path / "spool", "mariem", keep_s=100.0, disk=disk)
    store.accept_bytes(ENTRY, b"image").result()
    disk.full = True
    store.finish(ENTRY, None).result()
    assert "its end is recorded later: the disk is full" in caplog.text
    disk.full = False
    store.record_pending_ends()
    caplog.clear()
    assert store.unfinished_jobs().result() == []
    store.close()
    assert not caplog.records


def test_an_incomplete_dead_letter_is_removed_at_the_next_start(
    store: DiskJobStore, dead_letters: DeadLetters
) -> None:
    store.accept_bytes(ENTRY, b"image").result()
    store.finish(ENTRY, "boom", failed()).result()
    for half in (dead_letters.folder / "j7", dead_letters.retry_folder / "j8"):
        half.mkdir(parents=True)
        (half / "image").write_bytes(b"half")
    assert store.unfinished_jobs().result() == []
    assert [one.entry.job for one in dead_letters.all()] == ["j1"]
    assert list(dead_letters.retry_folder.iterdir()) == []
    assert [path.name for path in dead_letters.folder.iterdir()] == ["j1"]


def test_a_retry_that_was_accepted_before_a_kill_is_not_accepted_again(
    store: DiskJobStore, dead_letters: DeadLetters
) -> None:
    store.accept_bytes(ENTRY, b"image").result()
    store.finish(ENTRY, "boom", failed()).result()
    dead_letters.request_retry("j1")
    store.accept_bytes(msgspec.structs.replace(ENTRY, job="j1-2"), b"image").result()
    assert [entry.job for entry, _ in store.unfinished_jobs().result()] == ["j1-2"]
    assert store.retry_requests().result() == []
