"""Any legal name goes through a serving gateway, and comes out under a recognisable name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fogmqtt.gateway.storage.durable_files import DurableFiles
from tests.fog import wait_for
from tests.serving import PICTURE, Serving

NAMES = [
    b"caf\xe9.png",
    b"caf\xe9/caf\xe8.png",
    b"two\nlines.png",
    "写真".encode() * 40 + b".png",
    b"x" * 251 + b".png",
    b"a." + b"x" * 253,
    b" .png",
    b"-rf.png",
]


#: A BMP that is whole, as far as its length tells, and has no pixels.
DAMAGED = b"BM" + (26).to_bytes(4, "little") + bytes(20)


def folders(root: Path) -> dict[str, str]:
    return {"inbox": str(root / "inbox"), "outbox": str(root / "outbox")}


def put(root: Path, name: bytes, data: bytes = PICTURE) -> Path:
    path = root / "inbox" / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_every_legal_name_goes_in_and_comes_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [put(tmp_path, name) for name in NAMES]
    with Serving(str(tmp_path / "spool"), **folders(tmp_path)) as serving:
        done = [path.parent / "done" for path in paths]
        wait_for(lambda: all(any(one.glob("*")) for one in done), what="the originals", within=60)
        wait_for(lambda: serving.idle, what="the end of all jobs", within=60)
        results = {os.fsencode(path.name) for path in (tmp_path / "outbox").iterdir()}
    assert len(results) == len(NAMES)
    assert {b"caf\xe9.png", b"caf\xe8.png", b"two\nlines.png"} <= results
    assert (tmp_path / "inbox" / os.fsdecode(b"caf\xe9") / "done").is_dir()
    assert not any("\n" in record.getMessage() for record in caplog.records)
    assert not list((tmp_path / "spool").glob("*.image"))


def test_a_refused_file_of_any_name_is_moved_aside_with_its_reason(tmp_path: Path) -> None:
    paths = [put(tmp_path, name, DAMAGED) for name in NAMES]
    with Serving(str(tmp_path / "spool"), **folders(tmp_path)) as serving:
        wait_for(lambda: not any(path.exists() for path in paths), what="all files", within=60)
        wait_for(lambda: serving.idle, what="the end of all jobs", within=60)
    for folder in {path.parent for path in paths}:
        failed = list((folder / "failed").iterdir())
        reasons = [path for path in failed if path.suffix == ".txt"]
        assert len(reasons) == len(failed) / 2
        assert all("damaged" in path.read_text("utf-8") for path in reasons)


def test_a_file_that_cannot_be_taken_is_named_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Sticky(DurableFiles):
        tries = 0

        def rename(self, source: Path, target: Path) -> None:
            if source.name == "in.png" and Sticky.tries < 4:
                Sticky.tries += 1
                raise PermissionError(13, "Permission denied", str(source))
            super().rename(source, target)

    monkeypatch.setattr("fogmqtt.gateway.server.server.DurableFiles", Sticky)
    monkeypatch.setattr("fogmqtt.gateway.server.server.PAUSE_S", 0.1)
    path = put(tmp_path, b"in.png")
    with Serving(str(tmp_path / "spool"), **folders(tmp_path)):
        wait_for((path.parent / "done" / "in.png").exists, what="the original", within=60)
    assert Sticky.tries == 4
    assert caplog.text.count(f"{path} cannot be taken: Permission denied") == 1


def test_an_original_that_cannot_be_put_back_ends_neither_this_gateway_nor_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(tmp_path, b"in.png")
    (path.parent / "done").write_bytes(b"a file in the place of the folder")
    for count in (1, 2):
        with Serving(str(tmp_path / "spool"), **folders(tmp_path)) as serving:
            wait_for((tmp_path / "outbox" / "in.png").exists, what="the result", within=60)
            other = put(tmp_path, f"sub/{count}.png".encode())
            done = other.parent / "done" / other.name
            wait_for(done.exists, what="the other original", within=60)
            wait_for(lambda: serving.idle, what="the end of all jobs", within=60)
    assert "in.png: cannot put the original back" in caplog.text
    assert len(list((tmp_path / "spool").glob("*.image"))) == 1
