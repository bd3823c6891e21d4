"""The journal database: the progress of each accepted job, in SQLite.

It saves work and keeps no images: without it each job of the spool starts again. So only what
must not happen twice is synced. Results of tiles are in files beside the database. They are
written before their row, and are used only if their digest is the row's.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fogmqtt.errors import ConfigError
from fogmqtt.gateway.storage.api import (
    Bytes,
    JobHistory,
    SpoolEntry,
    StageHistory,
    TileRecord,
)
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.storage.tile_file import TileFile, digest, tile_file_path

log = logging.getLogger(__name__)

#: The file's and the tables' names belong to the format on disk, like VERSION.
NAME = "ledger.sqlite3"
VERSION = 2
#: "fog!", so that another program's database is recognised.
_APPLICATION = 0x666F6721

_SCHEMA = """
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
"""


@dataclass(frozen=True, slots=True)
class StageBegun:
    """Entry: a stage begins with these tiles. Its earlier entries are void."""

    token: str
    job: str
    position: int
    #: Identifies everything that determines a tile's result except its place and its pixels.
    kind: str
    plan: bytes
    size: int = 0


@dataclass(frozen=True, slots=True)
class TileKept:
    """Entry: a tile's result counts. `data` is the result's bytes as they came by MQTT."""

    job: str
    stage: str
    tile: int
    device: str
    data: Bytes

    @property
    def size(self) -> int:
        return memoryview(self.data).nbytes


@dataclass(frozen=True, slots=True)
class TileRevoked:
    """Entry: a tile's result no longer counts."""

    job: str
    stage: str
    tile: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class TileSplit:
    """Entry: two halves replace a tile."""

    job: str
    stage: str
    tile: int
    first: int
    second: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class ResultFiled:
    """Entry: the job's result is in the outbox."""

    job: str
    size: int = 0


#: What is written in batches. `size` is the memory in bytes that a waiting entry holds: only
#: entries with a size may be dropped because the disk is too slow.
JournalEntry = StageBegun | TileKept | TileRevoked | TileSplit | ResultFiled
_StageEntry = StageBegun | TileKept | TileRevoked | TileSplit


def new_token() -> str:
    """A stage's unique name, so that no tile file contains tiles of two plans."""
    return secrets.token_hex(6)


class JournalDb:
    """The open database. All methods block; call them from one thread at a time."""

    def __init__(self, folder: Path, disk: DurableFiles, keep_s: float) -> None:
        """Open or create it. Finished jobs are remembered for `keep_s` seconds.

        A damaged database or one of another version is renamed, and the log says so: that costs
        work, never an image. Raises ConfigError for one that cannot be opened.
        """
        self.folder = folder
        self.path = folder / NAME
        self._disk = disk
        self._keep_s = keep_s
        self._tile_files: dict[str, TileFile] = {}
        self._is_failing = False
        #: Stages of which an entry other than a tile was dropped, and their jobs.
        self._incomplete: dict[str, str] = {}
        try:
            self._db = self._open()
        except sqlite3.OperationalError as problem:
            raise self._unusable(problem) from None
        except sqlite3.DatabaseError as problem:
            self._put_aside(problem)
            self._db = self._open()

    def load(self, job: str) -> JobHistory:
        """What is recorded of a job."""
        row = self._db.execute(
            "SELECT image_file, facts_file, filed, ended_at IS NOT NULL, error FROM job WHERE id=?",
            (job,),
        ).fetchone()
        stages = {
            position: StageHistory(token, kind, plan, self._tiles(token), self._splits(token))
            for position, token, kind, plan in self._db.execute(
                "SELECT position, token, kind, plan FROM stage WHERE job=?", (job,)
            )
        }
        if row is None:
            return JobHistory(stages)
        image_file, facts_file, filed, ended, error = row
        paths = _read_path(image_file), _read_path(facts_file)
        return JobHistory(stages, *paths, bool(filed), bool(ended), error)

    def unfinished(self) -> dict[str, str]:
        """The unfinished jobs, each with its image's name."""
        return dict(self._db.execute("SELECT id, name FROM job WHERE ended_at IS NULL").fetchall())

    def reserved_paths(self) -> set[str]:
        """The paths in the outbox that unfinished jobs have reserved."""
        rows = self._db.execute("SELECT image_file, facts_file FROM job WHERE ended_at IS NULL")
        return {os.fsdecode(path) for row in rows for path in row if path}

    def origins(self) -> set[str]:
        """The origins of the remembered jobs' messages."""
        rows = self._db.execute("SELECT origin FROM job WHERE origin<>''")
        return {row[0] for row in rows}

    def accept(self, entry: SpoolEntry) -> None:
        """Record a job without a sync: its note in the spool is durable. Raises sqlite3.Error."""
        with self._transaction() as db:
            _add(db, entry)

    # These two sync before they return. Both raise sqlite3.Error.

    def reserve_paths(self, entry: SpoolEntry, image_file: str, facts_file: str | None) -> None:
        """Record the result's paths in the outbox."""
        with self._transaction(durable=True) as db:
            _add(db, entry)
            db.execute(
                "UPDATE job SET image_file=?, facts_file=? WHERE id=?",
                (_stored_path(image_file), _stored_path(facts_file), entry.job),
            )

    def end(self, entry: SpoolEntry, error: str | None) -> None:
        """Record that a job is finished and its result or error is delivered."""
        with self._transaction(durable=True) as db:
            _add(db, entry)
            text = None if error is None else error.encode("utf-8", "backslashreplace").decode()
            db.execute(
                "UPDATE job SET ended_at=?, error=? WHERE id=?", (time.time(), text, entry.job)
            )
            self._forget_old(db)

    # The rest.

    def forget_stages(self, job: str) -> None:
        """Delete a finished job's stages and tiles. The spool removes the tile files."""
        with self._transaction() as db:
            tokens = [row[0] for row in db.execute("SELECT token FROM stage WHERE job=?", (job,))]
            for token in tokens:
                _delete_stage(db, token)
        for token in tokens:
            self._close_tile_file(token)
        self._incomplete = {token: of for token, of in self._incomplete.items() if of != job}

    def keep_only(self, jobs: Sequence[str]) -> None:
        """Delete everything of other jobs, except the ends of recently finished ones."""
        with self._transaction() as db:
            db.execute("CREATE TEMP TABLE IF NOT EXISTS here (id TEXT PRIMARY KEY)")
            db.execute("DELETE FROM here")
            db.executemany("INSERT INTO here VALUES (?)", ((job,) for job in jobs))
            db.execute("DELETE FROM stage WHERE job NOT IN (SELECT id FROM here)")
            db.execute("DELETE FROM tile WHERE stage NOT IN (SELECT token FROM stage)")
            db.execute("DELETE FROM halved WHERE stage NOT IN (SELECT token FROM stage)")
            db.execute("DELETE FROM job WHERE ended_at IS NULL AND id NOT IN (SELECT id FROM here)")
            self._forget_old(db)

    def write(self, entries: Sequence[JournalEntry]) -> None:
        """Write entries in one transaction, or drop them on a full disk or without memory.

        A dropped tile is repeated after a restart. A stage of which another entry is dropped is
        repeated completely: its recorded tiles could be refuted ones, or halves without a split.
        """
        try:
            with self._transaction() as db:
                for token in self._incomplete:
                    _delete_stage(db, token)
                for entry in entries:
                    if isinstance(entry, ResultFiled):
                        db.execute("UPDATE job SET filed=1 WHERE id=?", (entry.job,))
                    elif _token(entry) not in self._incomplete:
                        self._write(db, entry)
        except (OSError, sqlite3.Error, MemoryError) as problem:
            self._drop(entries, problem)
            return
        self._is_failing = False

    def close(self) -> None:
        for token in tuple(self._tile_files):
            self._close_tile_file(token)
        self._db.close()

    def _drop(self, entries: Sequence[JournalEntry], problem: Exception) -> None:
        if not self._is_failing:
            log.warning("%s: %r; a restart would repeat the tiles", self.path, problem)
        self._is_failing = True
        for entry in entries:
            if not isinstance(entry, TileKept | ResultFiled):
                self._give_up_stage(entry.job, _token(entry))

    def _give_up_stage(self, job: str, token: str) -> None:
        """Have the stage repeated after a restart, even if nothing can be written before that."""
        self._incomplete[token] = job
        self._close_tile_file(token)
        try:
            # A full disk allows it, and recorded tiles without this file do not count.
            self._disk.remove(tile_file_path(self.folder, job, token))
        except OSError as problem:
            log.warning("%s: cannot remove tiles that must not be used: %s", job, problem)

    def _write(self, db: sqlite3.Connection, entry: _StageEntry) -> None:
        match entry:
            case StageBegun(token, job, position, kind, plan):
                db.execute(
                    "DELETE FROM tile WHERE stage IN "
                    "(SELECT token FROM stage WHERE job=? AND position=?)",
                    (job, position),
                )
                db.execute(
                    "INSERT OR REPLACE INTO stage VALUES (?,?,?,?,?)",
                    (token, job, position, kind, plan),
                )
            case TileKept(job, stage, tile, device, data):
                start = self._tile_file(job, stage).append(data)
                row = (stage, tile, device, start, entry.size, digest(stage, tile, data))
                db.execute("INSERT OR REPLACE INTO tile VALUES (?,?,?,?,?,?)", row)
            case TileSplit(_, stage, tile, first, second):
                db.execute(
                    "INSERT OR REPLACE INTO halved VALUES (?,?,?,?)", (stage, tile, first, second)
                )
            case TileRevoked(_, stage, tile):
                db.execute("DELETE FROM tile WHERE stage=? AND tile=?", (stage, tile))

    def _forget_old(self, db: sqlite3.Connection) -> None:
        # A clock that jumps ahead deletes ends early, one that jumps back deletes them late.
        db.execute("DELETE FROM job WHERE ended_at < ?", (time.time() - self._keep_s,))

    def _tiles(self, token: str) -> dict[int, TileRecord]:
        rows = self._db.execute(
            "SELECT tile, device, start, length, digest FROM tile WHERE stage=?", (token,)
        )
        return {row[0]: TileRecord(*row[1:]) for row in rows}

    def _splits(self, token: str) -> tuple[tuple[int, int, int], ...]:
        query = "SELECT tile, first, second FROM halved WHERE stage=? ORDER BY first"
        return tuple(self._db.execute(query, (token,)).fetchall())

    def _tile_file(self, job: str, stage: str) -> TileFile:
        if stage not in self._tile_files:
            path = tile_file_path(self.folder, job, stage)
            self._tile_files[stage] = TileFile(path, self._disk)
        return self._tile_files[stage]

    def _close_tile_file(self, stage: str) -> None:
        tile_file = self._tile_files.pop(stage, None)
        if tile_file is not None:
            tile_file.close()

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        # With NORMAL a power cut may lose the newest commits, but never an earlier one.
        if self._db.in_transaction:  # the last one failed, and so did its ROLLBACK
            self._db.execute("ROLLBACK")
        self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._disk.commit(self._db)
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    # Opening.

    def _open(self) -> sqlite3.Connection:
        # It is opened here and then used on the writer's thread.
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._check(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check(self, db: sqlite3.Connection) -> None:
        """Raise DatabaseError for a file that is damaged, of another version, or not ours."""
        version, application = (_pragma(db, name) for name in ("user_version", "application_id"))
        (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        is_new = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not is_new and application != _APPLICATION:
            raise sqlite3.DatabaseError("another program's database")
        if not is_new and version != VERSION:
            raise sqlite3.DatabaseError(f"version {version}, where this fogmqtt has {VERSION}")
        db.execute("PRAGMA journal_mode=WAL")
        if is_new:
            db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id={_APPLICATION}; "
                f"PRAGMA user_version={VERSION}; COMMIT;"
            )

    def _unusable(self, problem: sqlite3.Error) -> ConfigError:
        return ConfigError(
            f"gateway.spool: cannot open {self.path}: {problem}; make room or move it away: the "
            "images beside it are kept, and their jobs start again"
        )

    def _put_aside(self, problem: sqlite3.Error) -> None:
        aside = self.path.with_name(f"{NAME}.{time.strftime('%Y%m%d-%H%M%S')}")
        for suffix in ("", "-wal", "-shm"):
            path = self.path.with_name(NAME + suffix)
            if path.exists():
                path.replace(aside.with_name(aside.name + suffix))
        log.warning(
            "%s cannot be used (%s): it is renamed to %s, and the spool's jobs start again",
            self.path,
            problem,
            aside.name,
        )


def _add(db: sqlite3.Connection, entry: SpoolEntry) -> None:
    db.execute(
        "INSERT OR IGNORE INTO job (id, name, pipeline, reply, origin, accepted_at) "
        "VALUES (?,?,?,?,?,?)",
        (entry.job, entry.name, entry.pipeline, entry.reply, entry.origin, entry.accepted_at),
    )


def _stored_path(path: str | None) -> str | bytes | None:
    """Return a path as SQLite can hold it: as bytes if it is no valid UTF-8."""
    if path is None:
        return None
    data = os.fsencode(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _read_path(stored: str | bytes | None) -> str | None:
    return None if stored is None else os.fsdecode(stored)


def _token(entry: _StageEntry) -> str:
    return entry.token if isinstance(entry, StageBegun) else entry.stage


def _delete_stage(db: sqlite3.Connection, token: str) -> None:
    db.execute("DELETE FROM tile WHERE stage=?", (token,))
    db.execute("DELETE FROM halved WHERE stage=?", (token,))
    db.execute("DELETE FROM stage WHERE token=?", (token,))


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: Any = db.execute(f"PRAGMA {name}").fetchone()[0]
    return int(value)
