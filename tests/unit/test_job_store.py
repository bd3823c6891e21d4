"""The archive: accepted images, their ends, and folders that cannot be used."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fogmqtt.errors import ConfigError, FogError
from fogmqtt.gateway.storage import pixel_cache
from fogmqtt.gateway.storage.durable_files import Bytes, DurableFiles, is_full
from fogmqtt.gateway.storage.job_store import JobStore
from fogmqtt.gateway.storage.journal_db import Kept, PastJob
from fogmqtt.gateway.storage.spool import Entry, Spool, stamp
from fogmqtt.gateway.storage.writer import SpoolWriter

ENTRY = Entry(job="j1", name="submit/edges/me", pipeline="gray", reply="me", origin="7/t/d")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def archive(folder: Path) -> Iterator[JobStore]:
    made = opened(folder)
    yield made
    made.close()


def opened(folder: Path, disk: DurableFiles | None = None, max_bytes: int = 0) -> JobStore:
    return JobStore(folder, "mariem", keep_s=100.0, max_bytes=max_bytes, disk=disk)


def from_inbox(tmp_path: Path, name: str = "in.png") -> tuple[Entry, Path]:
    path = tmp_path / "inbox" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"image")
    entry = Entry(
        job=f"j-{name}", name=name, pipeline="gray", inbox=str(path.parent), stamp=stamp(path)
    )
    return entry, path


def test_what_is_accepted_is_unfinished_until_it_is_settled(archive: JobStore) -> None:
    archive.accept_bytes(ENTRY, b"image").result()
    assert archive.unfinished() == [(ENTRY, PastJob())]
    assert archive.origins() == {"7/t/d"}
    archive.settle(ENTRY, None).result()
    assert archive.unfinished() == []
    assert not list(archive.spool.folder.glob("j*"))
    assert archive.origins() == {"7/t/d"}, "the broker may repeat it still"


def test_the_oldest_comes_first(archive: JobStore) -> None:
    for number in (3, 1, 2):
        entry = Entry(job=f"j{9 - number}", name="x", pipeline="gray", accepted_at=float(number))
        archive.accept_bytes(entry, b"image").result()
    assert [entry.accepted_at for entry, _ in archive.unfinished()] == [1.0, 2.0, 3.0]


def test_an_original_goes_back_with_the_reason_beside_it(archive: JobStore, tmp_path: Path) -> None:
    good, path = from_inbox(tmp_path, "good.png")
    archive.accept_file(good, path).result()
    bad, path = from_inbox(tmp_path, "bad.png")
    archive.accept_file(bad, path).result()
    archive.settle(good, None).result()
    archive.settle(bad, "no luck").result()
    assert (tmp_path / "inbox" / "done" / "good.png").read_bytes() == b"image"
    assert (tmp_path / "inbox" / "failed" / "bad.png.txt").read_text() == "no luck\n"
    assert archive.unfinished() == []


def test_an_end_that_could_not_be_finished_is_finished_by_the_next_life(
    folder: Path, tmp_path: Path
) -> None:
    class Stuck(DurableFiles):
        def rename(self, source: Path, target: Path) -> None:
            if target.parent.name == "failed":
                raise OSError(5, "Input/output error")
            super().rename(source, target)

    archive = opened(folder, Stuck())
    entry, path = from_inbox(tmp_path)
    archive.accept_file(entry, path).result()
    with pytest.raises(OSError, match="Input/output error"):
        archive.settle(entry, "no luck").result()
    archive.close()
    again = opened(folder)
    assert again.unfinished() == []
    assert (tmp_path / "inbox" / "failed" / "in.png").exists()
    again.close()


def test_a_file_that_was_moved_from_another_disk_is_not_done_twice(
    folder: Path, tmp_path: Path
) -> None:
    entry, path = from_inbox(tmp_path)
    archive = opened(folder)
    archive.accept_bytes(entry, b"image").result()  # as far as a kill between copy and removal
    assert [one for one, _ in archive.unfinished()] == [entry]
    assert not path.exists()
    _, path = from_inbox(tmp_path)
    path.write_bytes(b"another image of that name")
    archive.unfinished()
    assert path.exists()
    archive.close()


# Bounds.


def test_over_its_bound_an_image_is_refused_until_there_is_room(folder: Path) -> None:
    archive = opened(folder, max_bytes=10)
    archive.accept_bytes(ENTRY, b"12345678").result()
    second = Entry(job="j2", name="x", pipeline="gray")
    with pytest.raises(FogError, match=r"8 bytes and this image has 3: .*spool_max_bytes = 10"):
        archive.accept_bytes(second, b"123").result()
    archive.settle(ENTRY, None).result()
    archive.accept_bytes(second, b"123").result()
    archive.close()
    later = opened(folder, max_bytes=10)
    later.unfinished()
    with pytest.raises(FogError, match="3 bytes"):
        later.accept_bytes(ENTRY, b"12345678").result()
    later.close()


def test_a_full_disk_refuses_leaves_nothing_and_recovers(folder: Path) -> None:
    class Full(DurableFiles):
        full = True

        def create(self, path: Path, data: Bytes) -> None:
            if self.full:
                path.write_bytes(bytes(data)[:3])
                raise OSError(28, "No space left on device")
            super().create(path, data)

    disk = Full()
    archive = opened(folder, disk)
    with pytest.raises(OSError, match="No space left") as caught:
        archive.accept_bytes(ENTRY, b"image").result()
    assert is_full(caught.value)
    assert not [path for path in folder.iterdir() if "j1" in path.name]
    disk.full = False
    archive.accept_bytes(ENTRY, b"image").result()
    assert archive.unfinished() == [(ENTRY, PastJob())]
    archive.close()


def test_a_file_that_does_not_fit_stays_in_the_inbox(folder: Path, tmp_path: Path) -> None:
    class Full(DurableFiles):
        def create(self, path: Path, data: Bytes) -> None:
            raise OSError(28, "No space left on device")

    archive = opened(folder, Full())
    entry, path = from_inbox(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        archive.accept_file(entry, path).result()
    assert path.read_bytes() == b"image"
    archive.close()


def test_lines_are_left_out_while_the_disk_does_not_keep_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fogmqtt.gateway.storage.writer.MAX_WAITING_BYTES", 25)
    gate, written = threading.Event(), []
    clerk = SpoolWriter(written.extend)
    clerk.order(gate.wait)
    for index in range(4):
        clerk.line(Kept("j1", "t", index, "eya", bytes(10)))
    gate.set()
    clerk.order(lambda: None).result()
    clerk.line(Kept("j1", "t", 9, "eya", bytes(10)))
    clerk.close()
    assert [line.tile for line in written] == [0, 1, 9]
    assert caplog.text.count("does not keep up") == 1


# Large images.


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_decoded_pixels_come_back_as_they_were(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(3).integers(0, 65535, shape, np.uint16)
    pixel_cache.write(DurableFiles(), tmp_path / "j1.pixels", image)
    again = pixel_cache.read(tmp_path / "j1.pixels")
    assert again is not None
    assert np.array_equal(again, image)
    again[0] = 0  # whoever draws on it changes no file
    assert np.array_equal(pixel_cache.read(tmp_path / "j1.pixels"), image)


@pytest.mark.parametrize("harm", ["flip", "cut", "header", "nothing there"])
def test_damaged_pixels_are_not_believed(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "j1.pixels"
    pixel_cache.write(DurableFiles(), path, np.zeros((30, 40), np.uint8))
    data = bytearray(path.read_bytes())
    match harm:
        case "flip":
            data[-1] ^= 1
        case "cut":
            data = data[:-5]
        case "header":
            data[:10] = b"0123456789"
        case _:
            data = bytearray()
    path.write_bytes(data)
    assert pixel_cache.read(path) is None


# Folders.


def test_a_spool_in_use_names_who_uses_it(folder: Path) -> None:
    archive = opened(folder)
    with pytest.raises(
        ConfigError, match=rf"another gateway works with .*: mariem \(process {os.getpid()} on "
    ):
        opened(folder)
    archive.close()
    opened(folder).close()


def test_a_lock_without_a_name_is_a_lock(folder: Path) -> None:
    spool = Spool(folder)
    (folder / ".lock").write_bytes(b"\xff not json")
    with pytest.raises(ConfigError, match="one that does not say who it is"):
        Spool(folder)
    spool.close()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"gateway\.spool: .*spool is not a folder; name one"):
        opened(tmp_path / "spool")


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("known", [True, False], ids=["used before", "new"])
def test_a_folder_that_we_may_not_write_to_is_named_with_its_owner(
    folder: Path, known: bool, as_nobody: None
) -> None:
    del as_nobody
    with pytest.raises(ConfigError, match=r"cannot write to .*: Permission denied.*this user may"):
        opened(folder if known else folder / "new")


@pytest.fixture
def as_nobody(folder: Path) -> Iterator[None]:
    """Without root's rights, in front of a spool that can only be read."""
    opened(folder).close()
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        _open_the_way(folder.parent)
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)


def _open_the_way(folder: Path) -> None:
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path.name.startswith(("pytest", "test")):
            path.chmod(path.stat().st_mode | 0o055)
