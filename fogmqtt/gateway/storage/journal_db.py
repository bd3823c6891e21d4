"""What an earlier life of the gateway did of a job, as its ledger tells."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fogmqtt.errors import ConfigError
from fogmqtt.gateway.storage.durable_files import Bytes, DurableFiles
from fogmqtt.gateway.storage.spool import Entry
from fogmqtt.gateway.storage.tile_file import TileFile, digest, tile_file_path


@dataclass(frozen=True, slots=True)
class PastTile:
    """Where a finished tile lies on its tape."""

    device: str
    start: int
    length: int
    digest: str


@dataclass(frozen=True, slots=True)
class PastStage:
    """What an earlier life did of a stage."""

    token: str
    kind: str
    plan: bytes
    tiles: dict[int, PastTile]
    #: Tiles for which two halves stand: the three indices, in the order in which they were halved.
    halved: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PastJob:
    """What an earlier life did of a job."""

    stages: dict[int, PastStage] = field(default_factory=dict)
    #: Where its results go in the outbox, once that was decided; and whether they are there.
    image_file: str | None = None
    facts_file: str | None = None
    filed: bool = False
    #: It was over, all but forgotten.
    ended: bool = False
    error: str | None = None


log = logging.getLogger(__name__)

NAME = "ledger.sqlite3"
VERSION = 2
#: "fog!", so that no other program's database is taken for ours.
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
class Begun:
    """Line: a stage is cut into tiles. What was there of it before is void."""

    token: str
    job: str
    position: int
    #: Everything that decides what a tile's bytes are, beside its pixels.
    kind: str
    plan: bytes

    @property
    def size(self) -> int:
        return len(self.plan)


@dataclass(frozen=True, slots=True)
class Kept:
    """Line: a tile's result counts. `data` is as it travels."""

    job: str
    stage: str
    tile: int
    device: str
    data: Bytes

    @property
    def size(self) -> int:
        return memoryview(self.data).nbytes


@dataclass(frozen=True, slots=True)
class Revoked:
    """Line: it does not count any more."""

    stage: str
    tile: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Halved:
    """Line: two halves stand for a tile."""

    stage: str
    tile: int
    first: int
    second: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Filed:
    """Line: the result is in the outbox."""

    job: str
    size: int = 0


Entered = Begun | Kept | Revoked | Halved | Filed


def new_token() -> str:
    """A stage's name: no tape is ever written for two plans."""
    return secrets.token_hex(6)


class JournalDb:
    """One thread at a time."""

    def __init__(self, folder: Path, disk: DurableFiles, keep_s: float) -> None:
        """Open or make it; jobs that ended are remembered for `keep_s`.

        One that is damaged or older is kept aside, which the log says. Raises ConfigError for
        one of a newer version, or that cannot be opened.
        """
        self.folder = folder
        self.path = folder / NAME
        self._disk = disk
        self._keep_s = keep_s
        self._tapes: dict[str, TileFile] = {}
        self._full = False
        try:
            self._db = self._open()
        except sqlite3.OperationalError as problem:
            raise self._unusable(problem) from None
        except sqlite3.DatabaseError as problem:
            self._put_aside(problem)
            self._db = self._open()

    def load(self, job: str) -> PastJob:
        """What is known of a job."""
        row = self._db.execute(
            "SELECT image_file, facts_file, filed, ended_at IS NOT NULL, error FROM job WHERE id=?",
            (job,),
        ).fetchone()
        stages = {
            position: PastStage(token, kind, plan, self._tiles(token), self._halved(token))
            for position, token, kind, plan in self._db.execute(
                "SELECT position, token, kind, plan FROM stage WHERE job=?", (job,)
            )
        }
        if row is None:
            return PastJob(stages)
        image_file, facts_file, filed, ended, error = row
        return PastJob(stages, image_file, facts_file, bool(filed), bool(ended), error)

    def open_jobs(self) -> dict[str, str]:
        """The jobs that did not end, each with its image's name."""
        return dict(self._db.execute("SELECT id, name FROM job WHERE ended_at IS NULL").fetchall())

    def reserved(self) -> set[str]:
        """The files in the outbox that unfinished jobs have chosen."""
        rows = self._db.execute("SELECT image_file, facts_file FROM job WHERE ended_at IS NULL")
        return {path for row in rows for path in row if path}

    def origins(self) -> set[str]:
        """What the broker called the messages of the jobs that are remembered."""
        rows = self._db.execute("SELECT origin FROM job WHERE origin<>''")
        return {row[0] for row in rows}

    def accept(self, entry: Entry) -> None:
        """A job is there; the spool's note makes it safe. Raises sqlite3.Error."""
        with self._transaction() as db:
            _add(db, entry)

    # What must be on the disk when it returns. Both raise sqlite3.Error.

    def reserve(self, entry: Entry, image_file: str, facts_file: str | None) -> None:
        """This is where a job's results go, in every life."""
        with self._transaction(durable=True) as db:
            _add(db, entry)
            db.execute(
                "UPDATE job SET image_file=?, facts_file=? WHERE id=?",
                (image_file, facts_file, entry.job),
            )

    def end(self, entry: Entry, error: str | None) -> None:
        """A job is over: whoever asked has been told."""
        with self._transaction(durable=True) as db:
            _add(db, entry)
            db.execute(
                "UPDATE job SET ended_at=?, error=? WHERE id=?", (time.time(), error, entry.job)
            )
            self._forget_old(db)

    # The rest.

    def forget_tiles(self, job: str) -> None:
        """Drop what is only of use while a job runs; its tapes are the spool's to remove."""
        with self._transaction() as db:
            tokens = [row[0] for row in db.execute("SELECT token FROM stage WHERE job=?", (job,))]
            for table in ("tile", "halved"):
                query = f"DELETE FROM {table} WHERE stage=?"  # noqa: S608  # names of our own
                db.executemany(query, ((token,) for token in tokens))
            db.execute("DELETE FROM stage WHERE job=?", (job,))
        for token in tokens:
            self._close_tape(token)

    def sweep(self, jobs: Sequence[str]) -> None:
        """Drop what belongs to none of these jobs, except how others ended lately."""
        with self._transaction() as db:
            db.execute("CREATE TEMP TABLE IF NOT EXISTS here (id TEXT PRIMARY KEY)")
            db.execute("DELETE FROM here")
            db.executemany("INSERT INTO here VALUES (?)", ((job,) for job in jobs))
            db.execute("DELETE FROM stage WHERE job NOT IN (SELECT id FROM here)")
            db.execute("DELETE FROM tile WHERE stage NOT IN (SELECT token FROM stage)")
            db.execute("DELETE FROM halved WHERE stage NOT IN (SELECT token FROM stage)")
            db.execute("DELETE FROM job WHERE ended_at IS NULL AND id NOT IN (SELECT id FROM here)")
            self._forget_old(db)

    def write(self, lines: Sequence[Entered]) -> None:
        """Put lines down together. Without room they are left out, which costs only work."""
        try:
            with self._transaction() as db:
                for line in lines:
                    self._enter(db, line)
        except (OSError, sqlite3.Error) as problem:
            if not self._full:
                log.warning("%s: %s; tiles done now would be done again", self.path, problem)
            self._full = True
            return
        self._full = False

    def close(self) -> None:
        for token in tuple(self._tapes):
            self._close_tape(token)
        self._db.close()

    def _enter(self, db: sqlite3.Connection, line: Entered) -> None:
        match line:
            case Begun(token, job, position, kind, plan):
                db.execute(
                    "DELETE FROM tile WHERE stage IN "
                    "(SELECT token FROM stage WHERE job=? AND position=?)",
                    (job, position),
                )
                db.execute(
                    "INSERT OR REPLACE INTO stage VALUES (?,?,?,?,?)",
                    (token, job, position, kind, plan),
                )
            case Kept(job, stage, tile, device, data):
                start = self._tape(job, stage).append(data)
                row = (stage, tile, device, start, line.size, digest(stage, tile, data))
                db.execute("INSERT OR REPLACE INTO tile VALUES (?,?,?,?,?,?)", row)
            case Halved(stage, tile, first, second):
                db.execute(
                    "INSERT OR REPLACE INTO halved VALUES (?,?,?,?)", (stage, tile, first, second)
                )
            case Revoked(stage, tile):
                db.execute("DELETE FROM tile WHERE stage=? AND tile=?", (stage, tile))
            case Filed(job):
                db.execute("UPDATE job SET filed=1 WHERE id=?", (job,))

    def _forget_old(self, db: sqlite3.Connection) -> None:
        # A clock that jumped ahead makes us forgetful; one that jumped back, patient.
        db.execute("DELETE FROM job WHERE ended_at < ?", (time.time() - self._keep_s,))

    def _tiles(self, token: str) -> dict[int, PastTile]:
        rows = self._db.execute(
            "SELECT tile, device, start, length, digest FROM tile WHERE stage=?", (token,)
        )
        return {row[0]: PastTile(*row[1:]) for row in rows}

    def _halved(self, token: str) -> tuple[tuple[int, int, int], ...]:
        query = "SELECT tile, first, second FROM halved WHERE stage=? ORDER BY first"
        return tuple(self._db.execute(query, (token,)).fetchall())

    def _tape(self, job: str, stage: str) -> TileFile:
        if stage not in self._tapes:
            self._tapes[stage] = TileFile(tile_file_path(self.folder, job, stage), self._disk)
        return self._tapes[stage]

    def _close_tape(self, stage: str) -> None:
        tape = self._tapes.pop(stage, None)
        if tape is not None:
            tape.close()

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        # NORMAL loses the newest commits in a power cut and never the order of them.
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
        # Opened here, used on the clerk's thread.
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._check(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check(self, db: sqlite3.Connection) -> None:
        """Raises DatabaseError for a damaged file, ConfigError for one of the future."""
        version, application = (_pragma(db, name) for name in ("user_version", "application_id"))
        (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        is_new = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not is_new and application != _APPLICATION:
            raise sqlite3.DatabaseError("another program's database")
        if not is_new and version < VERSION:
            raise sqlite3.DatabaseError(f"of version {version}, older than {VERSION}")
        if version > VERSION:
            raise ConfigError(
                f"gateway.spool: {self.path} is of version {version}, from a newer fogmqtt; this "
                f"one knows {VERSION}. Update it, or move the file away: the images beside it "
                "are kept, and done again"
            )
        db.execute("PRAGMA journal_mode=WAL")
        if is_new:
            db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id={_APPLICATION}; "
                f"PRAGMA user_version={VERSION}; COMMIT;"
            )

    def _unusable(self, problem: sqlite3.Error) -> ConfigError:
        return ConfigError(
            f"gateway.spool: cannot open {self.path}: {problem}; make room or move it away: the "
            "images beside it are kept, and done again"
        )

    def _put_aside(self, problem: sqlite3.Error) -> None:
        aside = self.path.with_name(f"{NAME}.{time.strftime('%Y%m%d-%H%M%S')}")
        for suffix in ("", "-wal", "-shm"):
            path = self.path.with_name(NAME + suffix)
            if path.exists():
                path.replace(aside.with_name(aside.name + suffix))
        log.warning(
            "%s cannot be used (%s): kept as %s; the spool's images are begun anew",
            self.path,
            problem,
            aside.name,
        )


def _add(db: sqlite3.Connection, entry: Entry) -> None:
    db.execute(
        "INSERT OR IGNORE INTO job (id, name, pipeline, reply, origin, accepted_at) "
        "VALUES (?,?,?,?,?,?)",
        (entry.job, entry.name, entry.pipeline, entry.reply, entry.origin, entry.accepted_at),
    )


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: Any = db.execute(f"PRAGMA {name}").fetchone()[0]
    return int(value)
