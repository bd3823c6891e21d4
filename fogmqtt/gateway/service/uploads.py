"""Image files that come in pieces: written to the spool as they come, within the limits.

Each open upload is a file in a folder of its own. It becomes a job when it is complete and its
digest fits, and is removed when its sender is silent for long, or with the next start.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import xxhash

from fogmqtt.gateway.service.refusals import RequestRefused
from fogmqtt.gateway.storage.durable_files import DurableFiles, is_full, write
from fogmqtt.log import one_line
from fogmqtt.wire.service_messages import ImageSubmission, OpenUpload

log = logging.getLogger(__name__)

#: Seconds without a piece after which an upload is removed.
ABANDONED_S: Final = 120.0
#: Seconds for which an idempotency key is remembered, and how many are.
KEYS_S: Final = 86_400.0
_MAX_KEYS: Final = 10_000
_KEYS: Final = "keys.json"


class _Key(msgspec.Struct, frozen=True):
    """What a submission with an idempotency key became."""

    #: Of the file, and of all else that was asked for.
    digest: str
    asked: str
    job: str
    at: float


@dataclass(slots=True)
class OpenedUpload:
    """An upload whose file is not complete."""

    request: OpenUpload
    client: str
    path: Path
    received: int = 0
    state: xxhash.xxh3_64 = field(default_factory=xxhash.xxh3_64)
    touched_at: float = field(default_factory=time.monotonic)
    #: Whether its file is being accepted as a job.
    closing: bool = False


class Uploads:
    """The open uploads. All methods block: call them from one thread.

    `max_bytes` limits a file, and `most` the number of open uploads.
    """

    def __init__(self, folder: Path, disk: DurableFiles, max_bytes: int, most: int) -> None:
        self._folder = folder
        self._disk = disk
        self._max_bytes = max_bytes
        self._most = most
        self._open: dict[str, OpenedUpload] = {}
        self._keys: dict[str, _Key] = {}

    def load(self) -> None:
        """Remove what earlier runs left open, and read the keys of their jobs. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if path.name != _KEYS:
                self._disk.remove(path)
        try:
            data = (self._folder / _KEYS).read_bytes()
            self._keys = msgspec.json.decode(data, type=dict[str, _Key])
        except FileNotFoundError:
            return
        except msgspec.MsgspecError as problem:
            log.warning("%s is unreadable: %s", self._folder / _KEYS, problem)

    def open(self, client: str, upload: str, request: OpenUpload) -> int:
        """Begin an upload. Returns the bytes that are there: none.

        Raises RequestRefused for a file that is too large or one upload too many, and OSError.
        """
        self._check_size(request.bytes or 0)
        self.remove_abandoned()
        if len(self._open) >= self._most:
            raise RequestRefused(
                "busy",
                f"{self._most} uploads are open, as many as limits.max_uploads allows; "
                "try again later",
                limit=self._most,
                retry_after_s=5.0,
            )
        path = self._folder / f"{upload}.part"
        path.touch(exist_ok=False)
        self._open[upload] = OpenedUpload(request, client, path)
        return 0

    def put(self, client: str, upload: str, offset: int, data: bytes) -> int:
        """Write the next bytes, and return how many are there. A repeated piece changes nothing.

        Raises RequestRefused for an unknown upload, a gap or a file that is too large, and OSError.
        """
        one = self._find(client, upload)
        one.touched_at = time.monotonic()
        if offset > one.received or offset < 0:
            raise RequestRefused(
                "conflict", f"the next byte of upload {upload} is {one.received}, not {offset}"
            )
        data = data[one.received - offset :]
        try:
            self._check_size(one.received + len(data))
            with one.path.open("r+b") as file:
                file.seek(one.received)
                file.write(data)
        except (RequestRefused, OSError) as problem:
            self.drop(client, upload)
            raise _with_reason(problem) from None
        one.state.update(data)
        one.received += len(data)
        return one.received

    def complete(self, client: str, upload: str, digest: str) -> OpenedUpload:
        """Check a complete upload, and return it.

        The caller moves its file and calls `accepted`, or else `drop`. Raises RequestRefused.
        """
        one = self._find(client, upload)
        expected = one.request.bytes
        if one.received == 0 or (expected is not None and expected != one.received):
            self.drop(client, upload)
            raise RequestRefused(
                "invalid",
                f"{one.received} bytes came, not {expected or 'an image'}; send the file again",
            )
        if one.state.hexdigest() != digest.lower():
            self.drop(client, upload)
            raise _changed()
        one.closing = True
        return one

    def check_file(self, data: bytes, digest: str) -> None:
        """Raise RequestRefused for a file in one message that cannot be accepted."""
        self._check_size(len(data))
        if not data:
            raise RequestRefused("invalid", "0 bytes came, not an image; send the file again")
        if xxhash.xxh3_64_hexdigest(data) != digest.lower():
            raise _changed()

    def claim(self, asked: ImageSubmission, digest: str, job: str) -> str:
        """Return the job that a submission's idempotency key already has, or "".

        The key belongs to `job` from then on. Raises RequestRefused if it belongs to another file
        or request, and OSError.
        """
        key, fingerprint = asked.idempotency_key, _fingerprint(asked)
        known = self._keys.get(key)
        if known is None or time.time() - known.at > KEYS_S:
            self._remember(key, _Key(digest.lower(), fingerprint, job, time.time()))
            return ""
        if (known.digest, known.asked) == (digest.lower(), fingerprint):
            return known.job
        other = "another file" if known.digest != digest.lower() else "other parameters"
        raise RequestRefused(
            "conflict", f"the idempotency key {key[:80]!r} belongs to {other}; use a new key"
        )

    def accepted(self, upload: str) -> None:
        """Forget an upload whose file was moved."""
        self._open.pop(upload, None)

    def _remember(self, key: str, made: _Key) -> None:
        oldest = time.time() - KEYS_S
        kept = {name: one for name, one in self._keys.items() if one.at > oldest}
        if len(kept) >= _MAX_KEYS:
            del kept[next(iter(kept))]
        self._keys = kept
        kept.pop(key, None)
        kept[key] = made
        # Before the job: a gateway that is killed in between does not do the image twice.
        write(self._disk, self._folder / _KEYS, msgspec.json.encode(kept))
        self._disk.sync(self._folder)

    def forget_key(self, key: str) -> None:
        """Forget a key whose job is not there."""
        self._keys.pop(key, None)

    def drop(self, client: str, upload: str) -> None:
        """Remove an upload; one that is not there is no error."""
        one = self._open.get(upload)
        if one is not None and one.client == client:
            del self._open[upload]
            self._remove(one)

    def remove_abandoned(self) -> None:
        """Remove the uploads whose senders are silent."""
        oldest = time.monotonic() - ABANDONED_S
        for upload, one in tuple(self._open.items()):
            if one.touched_at < oldest and not one.closing:
                log.info("upload of %s is removed: no byte came for %g s", _shown(one), ABANDONED_S)
                self.drop(one.client, upload)

    def copy_of(self, path: Path, upload: str) -> Path:
        """Copy a file into the folder. Raises OSError."""
        target = self._folder / f"{upload}.copy"
        if path.is_relative_to(self._folder.parent):
            self._disk.link(path, target)  # nobody else writes there
        else:
            self._disk.copy(path, target)
        return target

    def discard(self, path: Path) -> None:
        """Remove a file of `copy_of` that was not moved."""
        self._disk.remove(path)

    @property
    def any_open(self) -> bool:
        return bool(self._open)

    def _find(self, client: str, upload: str) -> OpenedUpload:
        one = self._open.get(upload)
        if one is None or one.client != client or one.closing:
            raise RequestRefused(
                "not-found", f"there is no upload {upload}: it ended, or nothing came for long"
            )
        return one

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise RequestRefused(
                "too-large",
                f"the file has more than {self._max_bytes} bytes, which limits.max_file_bytes "
                "allows",
                limit=self._max_bytes,
            )

    def _remove(self, one: OpenedUpload) -> None:
        try:
            self._disk.remove(one.path)
        except OSError as problem:
            log.warning("cannot remove %s: %s", one.path, problem.strerror)


def _changed() -> RequestRefused:
    """The refusal of a file that is not the one that was sent."""
    return RequestRefused(
        "invalid", "the digest does not match: the file changed on its way; send it again"
    )


def _fingerprint(asked: ImageSubmission) -> str:
    """Return a digest of what a submission asks for, beside its file."""
    values = (asked.name, asked.pipeline, asked.format, asked.priority, asked.verify, asked.pages)
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode((*values, asked.timeout_s)))


def _shown(one: OpenedUpload) -> str:
    return one_line(one.request.name)


def _with_reason(problem: Exception) -> Exception:
    if isinstance(problem, OSError) and is_full(problem):
        return RequestRefused(
            "paused", "the gateway's disk is full; submit it again when there is room"
        )
    return problem
