"""Files of jobs, read in pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fogmqtt.gateway.service.history import History
from fogmqtt.gateway.service.jobs import Jobs
from fogmqtt.gateway.service.refusals import RequestRefused, no_job
from fogmqtt.wire.service_messages import PIECE_BYTES, FileFacts, Piece, ReadFile

#: What a piece of a file that is not there is called.
_LARGEST: Final = PIECE_BYTES


async def read_file(jobs: Jobs, asked: ReadFile) -> Piece:
    """Return a piece of a job's file. Raises RequestRefused, and OSError."""
    if asked.offset < 0 or asked.length < 0:
        raise RequestRefused("invalid", "offset and length cannot be negative")
    return await jobs.on_disk(lambda history: _read(history, asked))


def _read(history: History, asked: ReadFile) -> Piece:
    found = history.get(asked.job)
    if found is None:
        raise no_job(asked.job)
    facts, path = found.card.files.get(asked.file), history.path(asked.job, asked.file)
    if facts is None or path is None:
        raise RequestRefused("not-found", f"job {asked.job} has no {asked.file}, or not any more")
    return piece(asked, facts, path)


def piece(asked: ReadFile, facts: FileFacts, path: Path) -> Piece:
    """Read a piece. Raises RequestRefused beyond the end, and OSError."""
    if asked.offset > facts.bytes:
        raise RequestRefused("invalid", f"the file has {facts.bytes} bytes", limit=facts.bytes)
    with path.open("rb") as file:
        file.seek(asked.offset)
        data = file.read(min(asked.length, _LARGEST))
    return Piece(id=asked.id, file=facts, offset=asked.offset, data=data)
