"""Accepted images on disk, until they are delivered: a gateway that is killed finds them again."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import msgspec

from fogmqtt.errors import ConfigError
from fogmqtt.images.files import write_bytes

log = logging.getLogger(__name__)


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
        """Make the folder. Raises ConfigError where it cannot be written to."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".probe"
            probe.write_bytes(b"")
            probe.unlink()
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
        shutil.move(path, self.image(entry.job))

    def forget(self, job: str) -> None:
        """The image is delivered."""
        self._entry(job).unlink(missing_ok=True)
        self.image(job).unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """What was accepted and not delivered, by an earlier life of this gateway."""
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

    def _entry(self, job: str) -> Path:
        return self.folder / f"{job}.json"

    def _note(self, entry: Entry) -> None:
        write_bytes(self._entry(entry.job), msgspec.json.encode(entry))
