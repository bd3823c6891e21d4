"""Which files in the outbox and in done/ the gateway put there, so that it deletes no others."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

log = logging.getLogger(__name__)

NAME: Final = "written.sqlite3"
#: Results in the outbox, and originals in done/ of an inbox.
Kind = Literal["outbox", "done"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS file (
    path BLOB PRIMARY KEY, kind TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS age ON file (kind, at);
"""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file as it was when the gateway put it there."""

    path: Path
    size: int
    mtime_ns: int
    #: Seconds since 1970.
    at: float

    def is_unchanged(self) -> bool:
        """Whether the file is still the one that was written. Blocking."""
        try:
            now = self.path.lstat()
        except OSError:
            return False
        same = (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns)
        return stat.S_ISREG(now.st_mode) and same


class WrittenFiles:
    """A list on disk; any thread may call it, and all methods block for a moment.

    Opening raises sqlite3.Error. Nothing depends on it but what is deleted: a file that is missing
    from the list is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = threading.Lock()
        try:
            self._db = self._open()
        except sqlite3.OperationalError:
            raise  # it cannot be opened; it is not damaged
        except sqlite3.DatabaseError as problem:
            log.warning("%s is renamed, so no file of before is deleted: %s", self._path, problem)
            self._path.replace(self._path.with_suffix(".damaged"))
            self._db = self._open()

    def record(self, kind: Kind, paths: Iterable[Path]) -> None:
        """Note files that were just written."""
        rows = []
        for path in paths:
            try:
                found = path.lstat()
            except OSError:
                continue  # somebody took it already
            row = (os.fsencode(path.absolute()), kind, found.st_size, found.st_mtime_ns)
            rows.append((*row, time.time()))
        self._write("INSERT OR REPLACE INTO file VALUES (?,?,?,?,?)", rows)

    def oldest(self, kind: Kind, limit: int, before: float = float("inf")) -> list[WrittenFile]:
        """Return the oldest files of a kind that were written before a moment."""
        query = (
            "SELECT path, size, mtime_ns, at FROM file WHERE kind=? AND at<? ORDER BY at LIMIT ?"
        )
        with self._lock:
            rows = self._db.execute(query, (kind, before, limit)).fetchall()
        return [WrittenFile(Path(os.fsdecode(row[0])), *row[1:]) for row in rows]

    def forget(self, files: Iterable[WrittenFile]) -> None:
        """Take files from the list."""
        rows = [(os.fsencode(one.path),) for one in files]
        self._write("DELETE FROM file WHERE path=?", rows)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            with self._lock, self._db:
                self._db.executemany(statement, rows)
        except sqlite3.Error as problem:  # such as a full disk
            log.warning("%s: some files will not be deleted by age: %s", self._path, problem)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db
