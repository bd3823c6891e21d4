"""The journal database: finished tiles survive a restart, damaged ones are repeated."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fogmqtt.core.geometry import Grid, Tile, cut
from fogmqtt.errors import ConfigError
from fogmqtt.gateway.storage.api import Bytes, SpoolEntry, StoredTile
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.storage.job_journal import DiskJobJournal
from fogmqtt.gateway.storage.journal_db import NAME, JournalDb, StageBegun, TileKept
from fogmqtt.gateway.storage.spool import Spool
from fogmqtt.gateway.storage.writer import SpoolWriter

ENTRY = SpoolEntry(job="j1", name="in.png", pipeline="gray", accepted_at=1.0)
TILES = cut((60, 90), Grid(columns=3, rows=2), halo=2, align=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def open_db(folder: Path, disk: DurableFiles | None = None, keep_s: float = 100.0) -> JournalDb:
    return JournalDb(folder, disk or DurableFiles(), keep_s)


@pytest.fixture
def db(folder: Path) -> Iterator[JournalDb]:
    made = open_db(folder)
    yield made
    made.close()


class FailingCommits(DurableFiles):
    """A disk on which transactions fail while there is an `error`."""

    error: Exception | None = None

    def commit(self, connection: sqlite3.Connection) -> None:
        if self.error is not None:
            raise self.error
        super().commit(connection)


class Opened:
    """The open journal of one job; a restart opens it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = FailingCommits()
        self.spool = Spool(folder)
        self.db = open_db(folder, self.disk)
        self.writer = SpoolWriter(self.db.write)
        self.journal = self._open_journal()

    def _open_journal(self) -> DiskJobJournal:
        history = self.writer.submit(lambda: self.db.load("j1")).result()
        return DiskJobJournal(self.spool, self.writer, "j1", history)

    def restart(self) -> DiskJobJournal:
        self.close()
        self.__init__(self.folder)  # type: ignore[misc]
        return self.journal

    def fail_commits(self, error: Exception | None) -> None:
        """From now on, after all entries so far are written."""
        self.writer.submit(lambda: setattr(self.disk, "error", error)).result()

    def close(self) -> None:
        self.spool.close()
        self.writer.close()
        self.db.close()


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    made = Opened(folder)
    yield made
    made.close()


def recorded(journal: DiskJobJournal, position: int = 0, kind: str = "kind") -> Sequence[Tile]:
    stage = journal.recorded_stage(position, kind)
    return () if stage is None else stage.tiles


def finished(journal: DiskJobJournal, position: int = 0) -> list[StoredTile]:
    assert recorded(journal, position)
    return list(journal.continue_stage(position))


def test_finished_tiles_are_read_unchanged_after_a_restart(opened: Opened) -> None:
    opened.journal.begin_stage(0, "kind", TILES)
    opened.journal.keep_tile(0, 4, "eya", memoryview(b"four"))
    opened.journal.keep_tile(0, 1, "manar", memoryview(b"one"))
    again = opened.restart()
    assert recorded(again) == TILES
    assert finished(again) == [StoredTile(4, "eya", b"four"), StoredTile(1, "manar", b"one")]


def test_a_stage_of_another_kind_is_not_continued(opened: Opened) -> None:
    opened.journal.begin_stage(0, "kind", TILES)
    opened.journal.keep_tile(0, 1, "eya", memoryview(b"one"))
    again = opened.restart()
    assert again.recorded_stage(0, "other parameters") is None
    again.begin_stage(0, "other parameters", TILES[:2])
    third = opened.restart()
    assert third.recorded_stage(0, "kind") is None
    assert recorded(third, kind="other parameters") == TILES[:2]
    assert list(third.continue_stage(0)) == []


def test_each_stage_has_its_own_tiles(opened: Opened) -> None:
    opened.journal.begin_stage(0, "kind", TILES)
    opened.journal.keep_tile(0, 0, "eya", memoryview(b"first"))
    opened.journal.begin_stage(2, "kind", TILES[:1])
    opened.journal.keep_tile(2, 0, "eya", memoryview(b"third"))
    again = opened.restart()
    assert finished(again, 2) == [StoredTile(0, "eya", b"third")]
    assert finished(again, 0) == [StoredTile(0, "eya", b"first")]
    assert again.recorded_stage(1, "kind") is None


def test_the_newest_result_of_a_tile_counts_and_a_revoked_one_does_not(opened: Opened) -> None:
    opened.journal.begin_stage(0, "kind", TILES)
    opened.journal.keep_tile(0, 0, "liar", memoryview(b"wrong"))
    opened.journal.keep_tile(0, 1, "liar", memoryview(b"wrong too"))
    opened.journal.revoke_tile(0, 0)
    opened.journal.revoke_tile(0, 1)
    opened.journal.keep_tile(0, 0, "eya", memoryview(b"right"))
    assert finished(opened.restart()) == [StoredTile(0, "eya", b"right")]


@pytest.mark.parametrize("at", [0, -1])
def test_a_damaged_tile_is_repeated_and_the_others_are_not(
    opened: Opened, folder: Path, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    opened.journal.begin_stage(0, "kind", TILES)
    for index in range(3):
        opened.journal.keep_tile(0, index, "eya", bytes([index]) * 10)
    again = opened.restart()
    (tile_file,) = folder.glob("j1.*.tiles")
    data = bytearray(tile_file.read_bytes())
    data[at] ^= 1
    tile_file.write_bytes(data)
    damaged = 0 if at == 0 else 2
    assert [one.tile for one in finished(again)] == [one for one in range(3) if one != damaged]
    assert f"tile {damaged} is damaged and is repeated" in caplog.text


def test_a_truncated_or_missing_tile_file_costs_only_work(opened: Opened, folder: Path) -> None:
    opened.journal.begin_stage(0, "kind", TILES)
    for index in range(3):
        opened.journal.keep_tile(0, index, "eya", b"0123456789")
    again = opened.restart()
    (tile_file,) = folder.glob("j1.*.tiles")
    tile_file.write_bytes(tile_file.read_bytes()[:15])
    assert [one.tile for one in finished(again)] == [0]
    tile_file.unlink()
    assert finished(again) == []


def test_the_end_of_a_job_is_remembered_for_keep_s_without_its_tiles(folder: Path) -> None:
    db = open_db(folder)
    db.accept(ENTRY)
    db.write([StageBegun("t", "j1", 0, "kind", b"plan"), TileKept("j1", "t", 0, "eya", b"x")])
    db.end(ENTRY, "too dark")
    db.forget_stages("j1")
    history = db.load("j1")
    assert (history.ended, history.error, history.stages) == (True, "too dark", {})
    db.close()
    later = open_db(folder, keep_s=0.0)
    later.keep_only([])
    assert not later.load("j1").ended
    later.close()


def test_stages_of_unknown_jobs_are_deleted(db: JournalDb) -> None:
    db.accept(ENTRY)
    db.write([StageBegun("t", "j1", 0, "kind", b"plan"), TileKept("j1", "t", 0, "eya", b"x")])
    db.keep_only(["j2"])
    assert db.load("j1").stages == {}


def test_paths_in_the_outbox_are_reserved_until_the_job_ends(db: JournalDb) -> None:
    db.reserve_paths(ENTRY, "out/in.png", "out/in.json")
    assert db.reserved_paths() == {"out/in.png", "out/in.json"}
    assert db.load("j1").image_file == "out/in.png"
    db.end(ENTRY, None)
    assert db.reserved_paths() == set()


# Bad input.


def damage(folder: Path, data: bytes) -> None:
    for path in folder.glob(f"{NAME}*"):
        path.unlink()
    (folder / NAME).write_bytes(data)


@pytest.mark.parametrize("data", [b"not a database" * 100, bytes(8192)], ids=["words", "zeros"])
def test_a_damaged_database_is_renamed(
    folder: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    damage(folder, data)
    db = open_db(folder)
    db.accept(ENTRY)
    db.close()
    (aside,) = folder.glob(f"{NAME}.*")
    assert aside.read_bytes() == data
    assert "cannot be used" in caplog.text
    assert aside.name in caplog.text
    assert "the spool's jobs start again" in caplog.text


def test_a_ledger_with_overopened_pages_is_kept_aside(folder: Path) -> None:
    db = open_db(folder)
    for number in range(500):
        db.accept(SpoolEntry(job=f"j{number}", name="x" * 100, pipeline="gray"))
    db.close()
    data = bytearray((folder / NAME).read_bytes())
    data[4096:-4096] = b"\xa5" * (len(data) - 8192)
    damage(folder, bytes(data))
    again = open_db(folder)
    again.accept(ENTRY)
    again.close()
    assert len(list(folder.glob(f"{NAME}.*"))) == 1


def database(folder: Path, *statements: str) -> None:
    db = sqlite3.connect(folder / NAME)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize("version", [0, 1, 9])
def test_a_database_of_another_version_is_renamed(
    folder: Path, caplog: pytest.LogCaptureFixture, version: int
) -> None:
    open_db(folder).close()
    database(folder, f"PRAGMA user_version={version}")
    open_db(folder).close()
    assert len(list(folder.glob(f"{NAME}.*"))) == 1
    assert f"version {version}, where this fogmqtt has 2" in caplog.text


def test_another_programs_database_is_renamed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database(folder, "CREATE TABLE recipes (name TEXT)")
    open_db(folder).close()
    assert "another program's database" in caplog.text


def test_the_error_for_a_database_that_cannot_be_opened_names_it(folder: Path) -> None:
    (folder / NAME).mkdir()
    with pytest.raises(ConfigError, match=rf"cannot open .*{NAME}.*move it away"):
        open_db(folder)


def test_a_full_disk_drops_tiles_and_is_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(DurableFiles):
        full = False

        def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().write_at(descriptor, data, offset)

    disk = Full()
    db = open_db(folder, disk)
    db.write([StageBegun("t", "j1", 0, "kind", b"plan")])
    disk.full = True
    for index in range(3):
        db.write([TileKept("j1", "t", index, "eya", b"x")])
    disk.full = False
    db.write([TileKept("j1", "t", 3, "eya", b"x")])
    assert set(db.load("j1").stages[0].tiles) == {3}
    assert caplog.text.count("No space left on device") == 1
    db.close()


FULL = sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("error", [FULL, MemoryError()], ids=["full disk", "memory"])
@pytest.mark.parametrize("later", [True, False], ids=["room again", "killed"])
def test_a_refuted_result_never_counts_even_if_its_revocation_was_dropped(
    opened: Opened, error: Exception, later: bool
) -> None:
    opened.journal.begin_stage(0, "kind", TILES)
    opened.journal.keep_tile(0, 0, "liar", memoryview(b"wrong"))
    opened.fail_commits(error)
    opened.journal.revoke_tile(0, 0)
    if later:
        opened.fail_commits(None)
        opened.journal.keep_tile(0, 1, "eya", memoryview(b"right"))
    again = opened.restart()
    assert list(again.continue_stage(0) if again.recorded_stage(0, "kind") else ()) == []


def test_the_halves_of_a_split_that_was_dropped_are_not_continued(opened: Opened) -> None:
    opened.journal.begin_stage(0, "kind", TILES)
    opened.fail_commits(FULL)
    opened.journal.split_tile(0, 0, len(TILES), len(TILES) + 1)
    opened.fail_commits(None)
    opened.journal.keep_tile(0, len(TILES), "eya", memoryview(b"half"))
    assert opened.restart().recorded_stage(0, "kind") is None


def test_tiles_of_a_stage_whose_begin_was_dropped_are_not_written(opened: Opened) -> None:
    opened.fail_commits(FULL)
    opened.journal.begin_stage(0, "kind", TILES)
    opened.fail_commits(None)
    opened.journal.keep_tile(0, 0, "eya", memoryview(b"result"))
    again = opened.restart()
    assert again.recorded_stage(0, "kind") is None
    assert not list(opened.folder.glob("*.tiles"))
    again.begin_stage(0, "kind", TILES)
    again.keep_tile(0, 0, "eya", memoryview(b"result"))
    assert finished(opened.restart()) == [StoredTile(0, "eya", b"result")]


def test_a_transaction_that_could_not_be_rolled_back_does_not_block_the_next(
    db: JournalDb,
) -> None:
    db._db.execute("BEGIN IMMEDIATE")  # as a MemoryError in ROLLBACK leaves it
    db.accept(ENTRY)
    assert db.unfinished() == {"j1": "in.png"}


def test_plans_of_every_shape_are_read_unchanged(opened: Opened) -> None:
    def plan(size: tuple[int, int], grid: Grid) -> tuple[Tile, ...]:
        return cut(size, grid, halo=7, align=64)

    plans = [plan((1, 1), Grid(columns=1, rows=1)), plan((500, 700), Grid(columns=5, rows=4))]
    for position, tiles in enumerate(plans):
        opened.journal.begin_stage(position, "kind", tiles)
    again = opened.restart()
    assert [recorded(again, position) for position in (0, 1)] == plans
