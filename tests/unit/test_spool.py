"""The spool: accepted images survive a kill, incomplete ones are removed, one gateway uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fogmqtt.errors import ConfigError
from fogmqtt.gateway.storage.api import SpoolEntry
from fogmqtt.gateway.storage.spool import Spool

ENTRY = SpoolEntry(job="j1", name="submit/edges/me", pipeline="edges", reply="me")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    yield made
    made.close()


def test_an_accepted_image_is_found_after_a_restart(spool: Spool) -> None:
    spool.accept_bytes(ENTRY, b"image")
    spool.close()
    again = Spool(spool.folder)
    assert again.entries() == [ENTRY]
    assert again.image_path("j1").read_bytes() == b"image"
    again.close()


def test_a_note_keeps_the_priority_and_an_older_note_without_one_has_0(spool: Spool) -> None:
    spool.accept_bytes(msgspec.structs.replace(ENTRY, priority=2), b"pixels")
    assert [entry.priority for entry in spool.entries()] == [2]
    (spool.folder / "j1.json").write_bytes(b'{"job": "j1", "name": "a", "pipeline": "edges"}')
    assert [entry.priority for entry in spool.entries()] == [0]


def test_an_accepted_file_is_moved_into_the_spool(spool: Spool, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"image")
    spool.accept_file(ENTRY, source)
    assert not source.exists()
    assert spool.image_path("j1").read_bytes() == b"image"
    assert spool.entries() == [ENTRY]


def test_a_removed_job_leaves_no_file(spool: Spool) -> None:
    spool.accept_bytes(ENTRY, b"image")
    spool.remove("j1")
    spool.remove("j1")
    assert spool.entries() == []
    assert not list(spool.folder.glob("j*"))


def test_incomplete_entries_are_removed_after_a_kill(spool: Spool) -> None:
    spool.accept_bytes(ENTRY, b"image")
    spool.image_path("j1").unlink()  # the note is written first
    spool.image_path("j2").write_bytes(b"an image without a note")
    (spool.folder / ".j3.part").write_bytes(b"half a copy")
    assert spool.entries() == []
    assert [path.name for path in spool.folder.iterdir()] == [".lock"]


def test_a_file_that_is_not_a_note_is_left_there(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    (spool.folder / "j9.json").write_text("not a note")
    (spool.folder / "j9.image").write_bytes(b"image")
    assert spool.entries() == []
    assert "j9.json is not a note of this spool and is left there" in caplog.text
    assert spool.image_path("j9").exists()


def test_a_second_gateway_cannot_use_the_same_spool(spool: Spool) -> None:
    with pytest.raises(ConfigError, match="another gateway uses"):
        Spool(spool.folder)


def test_the_error_for_a_folder_that_cannot_be_created_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"gateway\.spool: cannot write to"):
        Spool(tmp_path / "file" / "spool")
