"""The spool: what was accepted survives, what was not does not, and nobody shares it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fogmqtt.errors import ConfigError
from fogmqtt.gateway.storage.spool import Entry, Spool

ENTRY = Entry(job="j1", name="submit/edges/me", pipeline="edges", reply="me")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    yield made
    made.close()


def test_an_accepted_image_is_found_by_the_next_life(spool: Spool) -> None:
    spool.accept_bytes(ENTRY, b"image")
    spool.close()
    again = Spool(spool.folder)
    assert again.entries() == [ENTRY]
    assert again.image("j1").read_bytes() == b"image"
    again.close()


def test_an_accepted_image_keeps_its_priority_and_a_note_of_before_has_none(spool: Spool) -> None:
    spool.accept_bytes(msgspec.structs.replace(ENTRY, priority=2), b"pixels")
    assert [entry.priority for entry in spool.entries()] == [2]
    (spool.folder / "j1.json").write_bytes(b'{"job": "j1", "name": "a", "pipeline": "edges"}')
    assert [entry.priority for entry in spool.entries()] == [0]


def test_a_file_leaves_its_folder_for_the_spool(spool: Spool, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"image")
    spool.accept_file(ENTRY, source)
    assert not source.exists()
    assert spool.image("j1").read_bytes() == b"image"
    assert spool.entries() == [ENTRY]


def test_what_is_delivered_is_gone(spool: Spool) -> None:
    spool.accept_bytes(ENTRY, b"image")
    spool.forget("j1")
    spool.forget("j1")
    assert spool.entries() == []
    assert not list(spool.folder.glob("j*"))


def test_what_a_kill_left_half_accepted_is_swept_away(spool: Spool) -> None:
    spool.accept_bytes(ENTRY, b"image")
    spool.image("j1").unlink()  # its note came first
    spool.image("j2").write_bytes(b"an image without a note")
    (spool.folder / ".j3.part").write_bytes(b"half a copy")
    assert spool.entries() == []
    assert [path.name for path in spool.folder.iterdir()] == [".lock"]


def test_a_note_that_is_none_is_left_alone(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    (spool.folder / "j9.json").write_text("not a note")
    (spool.folder / "j9.image").write_bytes(b"image")
    assert spool.entries() == []
    assert "j9.json is not an entry of this spool, left alone" in caplog.text
    assert spool.image("j9").exists()


def test_two_gateways_cannot_share_one(spool: Spool) -> None:
    with pytest.raises(ConfigError, match="another gateway works with"):
        Spool(spool.folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"gateway\.spool: cannot write to"):
        Spool(tmp_path / "file" / "spool")
