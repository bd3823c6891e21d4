"""The ledger: what is finished stays finished, what is damaged is done again, and says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fogmqtt.core.geometry import Grid, Tile, cut
from fogmqtt.errors import ConfigError
from fogmqtt.gateway.storage.durable_files import Bytes, DurableFiles
from fogmqtt.gateway.storage.job_journal import Finished, JobJournal
from fogmqtt.gateway.storage.journal_db import NAME, Begun, JournalDb, Kept
from fogmqtt.gateway.storage.spool import Entry, Spool
from fogmqtt.gateway.storage.writer import SpoolWriter

ENTRY = Entry(job="j1", name="in.png", pipeline="gray", accepted_at=1.0)
TILES = cut((60, 90), Grid(columns=3, rows=2), halo=2, align=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def opened(folder: Path, disk: DurableFiles | None = None, keep_s: float = 100.0) -> JournalDb:
    return JournalDb(folder, disk or DurableFiles(), keep_s)


@pytest.fixture
def ledger(folder: Path) -> Iterator[JournalDb]:
    made = opened(folder)
    yield made
    made.close()


class Written:
    """A job's diary, and the next life's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder)
        self.ledger = opened(folder)
        self.clerk = SpoolWriter(self.ledger.write)
        self.journal = self._diary()

    def _diary(self) -> JobJournal:
        past = self.clerk.order(lambda: self.ledger.load("j1")).result()
        return JobJournal(self.spool, self.clerk, "j1", past)

    def next_life(self) -> JobJournal:
        self.close()
        self.__init__(self.folder)  # type: ignore[misc]
        return self.journal

    def close(self) -> None:
        self.spool.close()
        self.clerk.close()
        self.ledger.close()


@pytest.fixture
def written(folder: Path) -> Iterator[Written]:
    made = Written(folder)
    yield made
    made.close()


def finished(journal: JobJournal, position: int = 0) -> list[Finished]:
    assert journal.tiles(position, "kind") is not None
    return list(journal.finished(position))


def test_finished_tiles_are_found_by_the_next_life_as_they_came(written: Written) -> None:
    written.journal.begin(0, "kind", TILES)
    written.journal.keep(0, 4, "eya", memoryview(b"four"))
    written.journal.keep(0, 1, "manar", memoryview(b"one"))
    again = written.next_life()
    assert again.tiles(0, "kind") == TILES
    assert finished(again) == [Finished(4, "eya", b"four"), Finished(1, "manar", b"one")]


def test_a_stage_that_is_another_now_is_begun_anew(written: Written) -> None:
    written.journal.begin(0, "kind", TILES)
    written.journal.keep(0, 1, "eya", memoryview(b"one"))
    again = written.next_life()
    assert again.tiles(0, "other parameters") is None
    again.begin(0, "other parameters", TILES[:2])
    third = written.next_life()
    assert third.tiles(0, "kind") is None
    assert third.tiles(0, "other parameters") == TILES[:2]
    assert list(third.finished(0)) == []


def test_stages_are_kept_apart(written: Written) -> None:
    written.journal.begin(0, "kind", TILES)
    written.journal.keep(0, 0, "eya", memoryview(b"first"))
    written.journal.begin(2, "kind", TILES[:1])
    written.journal.keep(2, 0, "eya", memoryview(b"third"))
    again = written.next_life()
    assert finished(again, 2) == [Finished(0, "eya", b"third")]
    assert finished(again, 0) == [Finished(0, "eya", b"first")]
    assert again.tiles(1, "kind") is None


def test_the_newest_result_of_a_tile_counts_and_a_revoked_one_does_not(written: Written) -> None:
    written.journal.begin(0, "kind", TILES)
    written.journal.keep(0, 0, "liar", memoryview(b"wrong"))
    written.journal.keep(0, 1, "liar", memoryview(b"wrong too"))
    written.journal.revoke(0, 0)
    written.journal.revoke(0, 1)
    written.journal.keep(0, 0, "eya", memoryview(b"right"))
    assert finished(written.next_life()) == [Finished(0, "eya", b"right")]


@pytest.mark.parametrize("at", [0, -1])
def test_a_damaged_tile_is_done_again_and_the_others_are_not(
    written: Written, folder: Path, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    written.journal.begin(0, "kind", TILES)
    for index in range(3):
        written.journal.keep(0, index, "eya", bytes([index]) * 10)
    again = written.next_life()
    (tape,) = folder.glob("j1.*.tiles")
    data = bytearray(tape.read_bytes())
    data[at] ^= 1
    tape.write_bytes(data)
    damaged = 0 if at == 0 else 2
    assert [one.tile for one in finished(again)] == [one for one in range(3) if one != damaged]
    assert f"tile {damaged} is damaged on disk, done again" in caplog.text


def test_a_tape_that_is_cut_short_or_gone_costs_only_work(written: Written, folder: Path) -> None:
    written.journal.begin(0, "kind", TILES)
    for index in range(3):
        written.journal.keep(0, index, "eya", b"0123456789")
    again = written.next_life()
    (tape,) = folder.glob("j1.*.tiles")
    tape.write_bytes(tape.read_bytes()[:15])
    assert [one.tile for one in finished(again)] == [0]
    tape.unlink()
    assert finished(again) == []


def test_an_ended_job_is_remembered_for_a_while_without_its_tiles(folder: Path) -> None:
    ledger = opened(folder)
    ledger.accept(ENTRY)
    ledger.write([Begun("t", "j1", 0, "kind", b"plan"), Kept("j1", "t", 0, "eya", b"x")])
    ledger.end(ENTRY, "no luck")
    ledger.forget_tiles("j1")
    past = ledger.load("j1")
    assert (past.ended, past.error, past.stages) == (True, "no luck", {})
    ledger.close()
    later = opened(folder, keep_s=0.0)
    later.sweep([])
    assert not later.load("j1").ended
    later.close()


def test_what_is_left_of_unknown_jobs_is_swept_away(ledger: JournalDb) -> None:
    ledger.accept(ENTRY)
    ledger.write([Begun("t", "j1", 0, "kind", b"plan"), Kept("j1", "t", 0, "eya", b"x")])
    ledger.sweep(["j2"])
    assert ledger.load("j1").stages == {}


def test_names_in_the_outbox_are_reserved_until_the_job_ends(ledger: JournalDb) -> None:
    ledger.reserve(ENTRY, "out/in.png", "out/in.json")
    assert ledger.reserved() == {"out/in.png", "out/in.json"}
    assert ledger.load("j1").image_file == "out/in.png"
    ledger.end(ENTRY, None)
    assert ledger.reserved() == set()


# Bad input.


def damage(folder: Path, data: bytes) -> None:
    for path in folder.glob(f"{NAME}*"):
        path.unlink()
    (folder / NAME).write_bytes(data)


@pytest.mark.parametrize(
    "data", [b"this is no database" * 100, bytes(8192)], ids=["words", "zeros"]
)
def test_a_damaged_ledger_is_kept_aside(
    folder: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    damage(folder, data)
    ledger = opened(folder)
    ledger.accept(ENTRY)
    ledger.close()
    (aside,) = folder.glob(f"{NAME}.*")
    assert aside.read_bytes() == data
    assert "cannot be used" in caplog.text
    assert aside.name in caplog.text
    assert "begun anew" in caplog.text


def test_a_ledger_with_overwritten_pages_is_kept_aside(folder: Path) -> None:
    ledger = opened(folder)
    for number in range(500):
        ledger.accept(Entry(job=f"j{number}", name="x" * 100, pipeline="gray"))
    ledger.close()
    data = bytearray((folder / NAME).read_bytes())
    data[4096:-4096] = b"\xa5" * (len(data) - 8192)
    damage(folder, bytes(data))
    again = opened(folder)
    again.accept(ENTRY)
    again.close()
    assert len(list(folder.glob(f"{NAME}.*"))) == 1


def database(folder: Path, *statements: str) -> None:
    db = sqlite3.connect(folder / NAME)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_a_ledger_of_the_future_is_refused_with_the_way_out(folder: Path) -> None:
    opened(folder).close()
    database(folder, "PRAGMA user_version=9")
    with pytest.raises(ConfigError, match=r"version 9, from a newer fogmqtt; .*move the file away"):
        opened(folder)
    assert (folder / NAME).exists()


def test_an_older_ledger_is_kept_aside(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(folder).close()
    database(folder, "PRAGMA user_version=0")
    opened(folder).close()
    assert len(list(folder.glob(f"{NAME}.*"))) == 1
    assert "of version 0, older than 2" in caplog.text


def test_another_programs_database_is_kept_aside(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database(folder, "CREATE TABLE recipes (name TEXT)")
    opened(folder).close()
    assert "another program's database" in caplog.text


def test_a_ledger_that_cannot_be_opened_is_named(folder: Path) -> None:
    (folder / NAME).mkdir()
    with pytest.raises(ConfigError, match=rf"cannot open .*{NAME}.*move it away"):
        opened(folder)


def test_without_room_tiles_are_left_out_and_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(DurableFiles):
        full = False

        def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().write_at(descriptor, data, offset)

    disk = Full()
    ledger = opened(folder, disk)
    ledger.write([Begun("t", "j1", 0, "kind", b"plan")])
    disk.full = True
    for index in range(3):
        ledger.write([Kept("j1", "t", index, "eya", b"x")])
    disk.full = False
    ledger.write([Kept("j1", "t", 3, "eya", b"x")])
    assert set(ledger.load("j1").stages[0].tiles) == {3}
    assert caplog.text.count("No space left on device") == 1
    ledger.close()


def test_plans_of_every_shape_come_back(written: Written) -> None:
    def plan(size: tuple[int, int], grid: Grid) -> tuple[Tile, ...]:
        return cut(size, grid, halo=7, align=64)

    plans = [plan((1, 1), Grid(columns=1, rows=1)), plan((500, 700), Grid(columns=5, rows=4))]
    for position, tiles in enumerate(plans):
        written.journal.begin(position, "kind", tiles)
    again = written.next_life()
    assert [again.tiles(position, "kind") for position in (0, 1)] == plans
