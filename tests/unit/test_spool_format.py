"""A spool on disk is read by later versions: the formats of 0.1.0, byte for byte."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fogmqtt.core.geometry import Grid, cut
from fogmqtt.gateway.storage.api import SpoolEntry, StoredTile
from fogmqtt.gateway.storage.job_store import DiskJobStore

NOTE = (
    b'{"job":"j1","name":"in.png","pipeline":"gray | canny","reply":"me","inbox":"/x/inbox",'
    b'"stamp":[5,123],"origin":"7/t/d","priority":1,"accepted_at":1.5}'
)
ENTRY = SpoolEntry(
    job="j1",
    name="in.png",
    pipeline="gray | canny",
    reply="me",
    inbox="/x/inbox",
    stamp=(5, 123),
    origin="7/t/d",
    priority=1,
    accepted_at=1.5,
)
DEAD_LETTER = b"""{
  "entry": {
    "job": "j2", "name": "submit/edges/me", "pipeline": "gray", "reply": "me", "inbox": "",
    "stamp": null, "origin": "", "priority": 0, "accepted_at": 0.0
  },
  "reason": "boom",
  "failed_at": 2.5,
  "devices": {"eya": 2},
  "failures": [
    {"tile": 3, "attempt": 1, "device": "eya", "reason": "boom", "traceback": "Traceback"}
  ]
}"""
#: One stage of three tiles. Tile 1 is finished, tile 0 is split, its first half is finished.
DATABASE = """
CREATE TABLE job (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, pipeline TEXT NOT NULL, reply TEXT NOT NULL,
    origin TEXT NOT NULL, accepted_at REAL NOT NULL,
    image_file TEXT, facts_file TEXT, filed INTEGER NOT NULL DEFAULT 0,
    ended_at REAL, error TEXT
) WITHOUT ROWID;
CREATE TABLE stage (
    token TEXT PRIMARY KEY, job TEXT NOT NULL, position INTEGER NOT NULL,
    kind TEXT NOT NULL, plan BLOB NOT NULL,
    UNIQUE (job, position)
) WITHOUT ROWID;
CREATE TABLE tile (
    stage TEXT NOT NULL, tile INTEGER NOT NULL, device TEXT NOT NULL,
    start INTEGER NOT NULL, length INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (stage, tile)
) WITHOUT ROWID;
CREATE TABLE halved (
    stage TEXT NOT NULL, tile INTEGER NOT NULL, first INTEGER NOT NULL, second INTEGER NOT NULL,
    PRIMARY KEY (stage, tile)
) WITHOUT ROWID;
PRAGMA application_id=1718576929;
PRAGMA user_version=2;
INSERT INTO job VALUES (
    'j1', 'in.png', 'gray | canny', 'me', '7/t/d', 1.5, '/out/in.png', '/out/in.json', 1, NULL, NULL
);
INSERT INTO stage VALUES (
    '3a0aaa20ab2c', 'j1', 0, 'kind',
    x'92923c5a93929400003c1e9400003c209294001e3c1e94001c3c229294003c3c1e94003a3c20'
);
INSERT INTO tile VALUES ('3a0aaa20ab2c', 1, 'eya', 0, 6, 'befc76f486db30f4');
INSERT INTO tile VALUES ('3a0aaa20ab2c', 3, 'oumayma', 6, 4, '579c7db4885cc70c');
INSERT INTO halved VALUES ('3a0aaa20ab2c', 0, 3, 4);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spool with an unfinished job, whose progress is recorded, and a dead letter."""
    folder = tmp_path / "spool"
    (folder / "dead" / "j2").mkdir(parents=True)
    (folder / "j1.json").write_bytes(NOTE)
    (folder / "j1.image").write_bytes(b"image")
    (folder / "j1.3a0aaa20ab2c.tiles").write_bytes(b"resulthalfno")
    (folder / "dead" / "j2" / "note.json").write_bytes(DEAD_LETTER)
    (folder / "dead" / "j2" / "image").write_bytes(b"dead")
    (folder / ".lock").write_bytes(b'{"gateway":"mariem","pid":19307,"host":"vm"}')
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as database:
        database.executescript(DATABASE)
    return folder


@pytest.fixture
def store(folder: Path) -> Iterator[DiskJobStore]:
    made = DiskJobStore(folder, "mariem", keep_s=100.0)
    yield made
    made.close()


def test_an_accepted_image_and_its_note_are_read(store: DiskJobStore) -> None:
    ((entry, history),) = store.unfinished_jobs().result()
    assert entry == ENTRY
    assert store.image_path("j1").read_bytes() == b"image"
    assert (history.image_file, history.facts_file) == ("/out/in.png", "/out/in.json")
    assert (history.filed, history.ended, history.error) == (True, False, None)
    assert store.recent_origins().result() == {"7/t/d"}
    assert store.reserved_paths().result() == {"/out/in.png", "/out/in.json"}


def test_finished_tiles_and_splits_are_continued(store: DiskJobStore) -> None:
    ((_, history),) = store.unfinished_jobs().result()
    journal = store.open_journal("j1", history)
    stage = journal.recorded_stage(0, "kind")
    assert stage is not None
    assert stage.tiles == cut((60, 90), Grid(columns=3, rows=1), halo=2, align=1)
    assert stage.splits == ((0, 3, 4),)
    assert list(journal.continue_stage(0)) == [
        StoredTile(1, "eya", b"result"),
        StoredTile(3, "oumayma", b"half"),
    ]


def test_a_dead_letter_is_retried(store: DiskJobStore, folder: Path) -> None:
    (folder / "retry").mkdir()
    (folder / "dead" / "j2").rename(folder / "retry" / "j2")
    (dead_letter,) = store.retry_requests().result()
    assert (dead_letter.reason, dead_letter.devices) == ("boom", {"eya": 2})
    assert dead_letter.failures[0].traceback == "Traceback"
    entry = store.accept_retry(dead_letter).result()
    assert entry is not None
    assert entry.job == "j2-2"
    assert store.image_path("j2-2").read_bytes() == b"dead"


@pytest.mark.parametrize("change", ["PRAGMA user_version=1", "PRAGMA application_id=7"])
def test_a_database_of_another_format_costs_work_and_no_image(folder: Path, change: str) -> None:
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as database:
        database.executescript(change)
    store = DiskJobStore(folder, "mariem", keep_s=100.0)
    ((entry, history),) = store.unfinished_jobs().result()
    assert entry == ENTRY
    assert history.stages == {}
    assert store.image_path("j1").read_bytes() == b"image"
    store.close()
    assert len(list(folder.glob("ledger.sqlite3.*"))) == 1


def test_what_is_written_now_has_the_same_fields(tmp_path: Path) -> None:
    store = DiskJobStore(tmp_path / "spool", "mariem", keep_s=100.0)
    store.accept_bytes(ENTRY, b"image").result()
    store.close()
    assert (tmp_path / "spool" / "j1.json").read_bytes() == NOTE
    with closing(sqlite3.connect(tmp_path / "spool" / "ledger.sqlite3")) as database:
        tables = database.execute("SELECT sql FROM sqlite_master WHERE type='table'").fetchall()
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
    assert all(sql in DATABASE for (sql,) in tables)
