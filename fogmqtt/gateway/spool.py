"""Accepted images on disk, until they are delivered: a gateway that is killed finds them again."""

from __future__ import annotations

import fcntl
import logging
import shutil
from pathlib import Path

import msgspec

from fogmqtt.errors import ConfigError
from fogmqtt.images.files import write_bytes

log = logging.getLogger(__name__)

#: What is not whole yet ends like this; it is also what `write_bytes` calls it.
_PART = ".part"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted image."""

    job: str
    #: The file's own name, or what stands for it.
    name: str
    pipeline: str
    #: Whom to answer on replies/<reply>; empty for nobody.
    reply: str = ""
    #: The inbox that the original goes back to, under done/ or failed/; empty: it came by MQTT.
    inbox: str = ""


class Spool:
    """A folder of `<job>.image` and `<job>.json`; the second makes the first count."""

    def __init__(self, folder: Path) -> None:
        """Make the folder. Raises ConfigError where it cannot be written to, or is in use."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ConfigError(
                f"gateway.spool: another gateway works with {folder}; give each its own"
            ) from None
        except OSError as problem:
            raise ConfigError(
                f"gateway.spool: cannot write to {folder}: {problem.strerror}; "
                "name a folder that this user may write to"
            ) from None

    def image(self, job: str) -> Path:
        return self.folder / f"{job}.image"

    def accept_bytes(self, entry: Entry, data: bytes) -> None:
        """Keep an image that came by MQTT. Raises OSError."""
        write_bytes(self.image(entry.job), data)
        self._note(entry)

    def accept_file(self, entry: Entry, path: Path) -> None:
        """Take a file out of its folder. Raises OSError."""
        self._note(entry)
        part = self.folder / f".{entry.job}{_PART}"
        shutil.move(path, part)  # a copy where the spool is on another disk
        part.replace(self.image(entry.job))

    def forget(self, job: str) -> None:
        """The image is delivered."""
        self._entry(job).unlink(missing_ok=True)
        self.image(job).unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """What was accepted and not delivered, by an earlier life of this gateway.

        To be asked before anything is accepted: what was never accepted is removed.
        """
        self._sweep()
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                entry = msgspec.json.decode(path.read_bytes(), type=Entry)
            except (OSError, msgspec.MsgspecError) as problem:
                log.warning("%s is not an entry of this spool, left alone: %s", path, problem)
                continue
            if self.image(entry.job).exists():
                found.append(entry)
            else:
                path.unlink(missing_ok=True)  # killed before the image was in
        return found

    def close(self) -> None:
        """Let another gateway have the folder."""
        self._lock.close()

    def _sweep(self) -> None:
        unnoted = [
            path for path in self.folder.glob("*.image") if not self._entry(path.stem).exists()
        ]
        for path in (*unnoted, *self.folder.glob(f".*{_PART}")):
            path.unlink(missing_ok=True)

    def _entry(self, job: str) -> Path:
        return self.folder / f"{job}.json"

    def _note(self, entry: Entry) -> None:
        write_bytes(self._entry(entry.job), msgspec.json.encode(entry))
