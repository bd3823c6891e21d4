"""The job store on disk: accepted images, the ends of their jobs, and unusable folders."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fogmqtt.core.geometry import Grid, cut
from fogmqtt.errors import ConfigError, FogError
from fogmqtt.gateway.storage import pixel_cache
from fogmqtt.gateway.storage.api import Bytes, JobHistory, SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles, is_full
from fogmqtt.gateway.storage.job_store import DiskJobStore
from fogmqtt.gateway.storage.journal_db import TileKept
from fogmqtt.gateway.storage.spool import Spool, stamp
from fogmqtt.gateway.storage.writer import SpoolWriter
from fogmqtt.log import shown_name

ENTRY = SpoolEntry(job="j1", name="submit/edges/me", pipeline="gray", reply="me", origin="7/t/d")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store(folder: Path) -> Iterator[DiskJobStore]:
    made = opened(folder)
    yield made
    made.close()


def opened(folder: Path, disk: DurableFiles | None = None, max_bytes: int = 0) -> DiskJobStore:
    return DiskJobStore(folder, "mariem", keep_s=100.0, max_bytes=max_bytes, disk=disk)


def from_inbox(tmp_path: Path, name: str = "in.png") -> tuple[SpoolEntry, Path]:
    path = tmp_path / "inbox" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"image")
    entry = SpoolEntry(
        job=f"j-{name}", name=name, pipeline="gray", inbox=str(path.parent), stamp=stamp(path)
    )
    return entry, path


def test_an_accepted_job_is_unfinished_until_it_ends(store: DiskJobStore, folder: Path) -> None:
    store.accept_bytes(ENTRY, b"image").result()
    assert store.unfinished_jobs().result() == [(ENTRY, JobHistory())]
    assert store.recent_origins().result() == {"7/t/d"}
    store.finish(ENTRY, None).result()
    assert store.unfinished_jobs().result() == []
    assert not list(folder.glob("j*"))
    assert store.recent_origins().result() == {"7/t/d"}, "the broker may still repeat the message"


def test_the_oldest_comes_first(store: DiskJobStore) -> None:
    for number in (3, 1, 2):
        entry = SpoolEntry(
            job=f"j{9 - number}", name="x", pipeline="gray", accepted_at=float(number)
        )
        store.accept_bytes(entry, b"image").result()
    assert [entry.accepted_at for entry, _ in store.unfinished_jobs().result()] == [1.0, 2.0, 3.0]


def test_an_original_returns_to_its_inbox_with_the_reason_beside_it(
    store: DiskJobStore, tmp_path: Path
) -> None:
    good, path = from_inbox(tmp_path, "good.png")
    store.accept_file(good, path).result()
    bad, path = from_inbox(tmp_path, "bad.png")
    store.accept_file(bad, path).result()
    store.finish(good, None).result()
    store.finish(bad, "too dark").result()
    assert (tmp_path / "inbox" / "done" / "good.png").read_bytes() == b"image"
    assert (tmp_path / "inbox" / "failed" / "bad.png.txt").read_text() == "too dark\n"
    assert store.unfinished_jobs().result() == []


@pytest.mark.parametrize("is_relative", [True, False])
def test_of_a_link_the_file_is_taken_and_the_link_goes(
    store: DiskJobStore, tmp_path: Path, is_relative: bool
) -> None:
    (tmp_path / "elsewhere.png").write_bytes(b"image")
    path = tmp_path / "inbox" / "link.png"
    path.parent.mkdir()
    path.symlink_to("../elsewhere.png" if is_relative else tmp_path / "elsewhere.png")
    entry = SpoolEntry(
        job="j1", name=path.name, pipeline="gray", inbox=str(path.parent), stamp=stamp(path)
    )
    store.accept_file(entry, path).result()
    (tmp_path / "elsewhere.png").write_bytes(b"another")
    assert store.image_path("j1").read_bytes() == b"image"
    assert not path.is_symlink()
    store.finish(entry, None).result()
    assert (path.parent / "done" / "link.png").read_bytes() == b"image"
    assert (tmp_path / "elsewhere.png").read_bytes() == b"another"


def test_what_an_earlier_run_left_and_cannot_be_removed_stops_no_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(folder)
    store.accept_bytes(ENTRY, b"image").result()
    store.close()
    for name in ("j9.image", "j8.json", ".j7.image.part", "j6.0.tiles"):
        (folder / name).write_bytes(
            b'{"job":"j8","name":"x","pipeline":"gray"}' if name == "j8.json" else b""
        )

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    again = opened(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert [one for one, _ in again.unfinished_jobs().result()] == [ENTRY]
    assert caplog.text.count("cannot remove") >= 3
    again.close()


def named(tmp_path: Path, name: bytes) -> tuple[SpoolEntry, Path]:
    """A file of the inbox whose path is no valid UTF-8, and its entry."""
    path = tmp_path / "inbox" / os.fsdecode(b"\xe9t\xe9") / os.fsdecode(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"image")
    entry = SpoolEntry(
        job="j1",
        name=shown_name(path.name),
        pipeline="gray",
        inbox=shown_name(str(path.parent)),
        stamp=stamp(path),
        path=os.fsencode(path),
    )
    return entry, path


def test_an_original_keeps_a_name_that_is_no_utf_8(
    store: DiskJobStore, folder: Path, tmp_path: Path
) -> None:
    entry, path = named(tmp_path, b"caf\xe9\n.png")
    store.accept_file(entry, path).result()
    ((again, _),) = store.unfinished_jobs().result()
    assert again == entry
    assert again.inbox_path == path
    assert (folder / "j1.json").read_bytes().decode("utf-8").isprintable()
    store.finish(again, f"{path}: too dark").result()
    assert (path.parent / "failed" / path.name).read_bytes() == b"image"
    assert "too dark" in (path.parent / "failed" / f"{path.name}.txt").read_text()


def test_a_reserved_path_may_have_any_bytes(store: DiskJobStore, tmp_path: Path) -> None:
    entry, path = named(tmp_path, b"caf\xe9.png")
    store.accept_file(entry, path).result()
    image, facts = path.with_suffix(".tif"), path.with_suffix(".json")
    store.reserve_paths(entry, image, facts).result()
    ((_, history),) = store.unfinished_jobs().result()
    assert (history.image_file, history.facts_file) == (str(image), str(facts))
    assert store.reserved_paths().result() == {str(image), str(facts)}


def test_a_file_that_a_kill_left_at_both_places_and_cannot_be_removed_stops_no_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(folder)
    entry, path = named(tmp_path, b"caf\xe9.png")
    store.accept_file(entry, path).result()
    store.close()
    path.write_bytes(b"image")
    os.utime(path, ns=(entry.stamp[1], entry.stamp[1]) if entry.stamp else None)

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    again = opened(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert [one for one, _ in again.unfinished_jobs().result()] == [entry]
    assert "cannot be removed: Permission denied" in caplog.text
    assert [one for one, _ in again.unfinished_jobs().result()] == [entry]
    assert not path.exists()
    again.close()


def test_an_end_that_failed_halfway_is_completed_after_a_restart(
    folder: Path, tmp_path: Path
) -> None:
    class Stuck(DurableFiles):
        def rename(self, source: Path, target: Path) -> None:
            if target.parent.resolve().name == "failed":
                raise OSError(5, "Input/output error")
            super().rename(source, target)

    store = opened(folder, Stuck())
    entry, path = from_inbox(tmp_path)
    store.accept_file(entry, path).result()
    with pytest.raises(OSError, match="Input/output error"):
        store.finish(entry, "too dark").result()
    store.close()
    again = opened(folder)
    assert again.unfinished_jobs().result() == []
    assert (tmp_path / "inbox" / "failed" / "in.png").exists()
    again.close()


def test_an_end_that_fails_again_after_a_restart_does_not_stop_the_other_jobs(
    folder: Path, tmp_path: Path
) -> None:
    store = opened(folder)
    entry, path = from_inbox(tmp_path)
    store.accept_file(entry, path).result()
    store.accept_bytes(ENTRY, b"image").result()
    (tmp_path / "inbox" / "failed").write_bytes(b"a file in the place of the folder")
    with pytest.raises(OSError, match="Not a directory"):
        store.finish(entry, "too dark").result()
    store.close()
    again = opened(folder)
    assert again.unfinished_jobs().result() == [(ENTRY, JobHistory())]
    assert again.image_path(entry.job).read_bytes() == b"image"
    again.close()


def test_a_file_moved_from_another_file_system_is_not_processed_twice(
    folder: Path, tmp_path: Path
) -> None:
    entry, path = from_inbox(tmp_path)
    store = opened(folder)
    store.accept_bytes(entry, b"image").result()  # the state after a kill between copy and removal
    assert [one for one, _ in store.unfinished_jobs().result()] == [entry]
    assert not path.exists()
    _, path = from_inbox(tmp_path)
    path.write_bytes(b"another image with this name")
    store.unfinished_jobs().result()
    assert path.exists()
    store.close()


# Limits.


def test_an_image_above_max_bytes_is_refused_until_there_is_room(folder: Path) -> None:
    store = opened(folder, max_bytes=10)
    store.accept_bytes(ENTRY, b"12345678").result()
    second = SpoolEntry(job="j2", name="x", pipeline="gray")
    with pytest.raises(FogError, match=r"8 bytes and this image has 3: .*spool_max_bytes = 10"):
        store.accept_bytes(second, b"123").result()
    store.finish(ENTRY, None).result()
    store.accept_bytes(second, b"123").result()
    store.close()
    later = opened(folder, max_bytes=10)
    later.unfinished_jobs().result()
    with pytest.raises(FogError, match="3 bytes"):
        later.accept_bytes(ENTRY, b"12345678").result()
    later.close()


def test_max_bytes_counts_finished_tiles_until_their_job_ends(folder: Path) -> None:
    store = opened(folder, max_bytes=100)
    store.accept_bytes(ENTRY, bytes(10)).result()
    journal = store.open_journal("j1", JobHistory())
    journal.begin_stage(0, "kind", cut((60, 90), Grid(columns=3, rows=2), halo=2, align=1))
    journal.keep_tile(0, 0, "eya", bytes(60))
    second = SpoolEntry(job="j2", name="x", pipeline="gray")
    with pytest.raises(FogError, match="holds 70 bytes and this image has 50"):
        store.accept_bytes(second, bytes(50)).result()
    store.finish(ENTRY, None).result()
    with pytest.raises(FogError, match="holds 0 bytes and this image has 101"):
        store.accept_bytes(second, bytes(101)).result()
    store.close()


def test_a_full_disk_refuses_an_image_and_leaves_no_file_of_it(folder: Path) -> None:
    class Full(DurableFiles):
        full = True

        def create(self, path: Path, data: Bytes) -> None:
            if self.full:
                path.write_bytes(bytes(data)[:3])
                raise OSError(28, "No space left on device")
            super().create(path, data)

    disk = Full()
    store = opened(folder, disk)
    with pytest.raises(OSError, match="No space left") as caught:
        store.accept_bytes(ENTRY, b"image").result()
    assert is_full(caught.value)
    assert not [path for path in folder.iterdir() if "j1" in path.name]
    disk.full = False
    store.accept_bytes(ENTRY, b"image").result()
    assert store.unfinished_jobs().result() == [(ENTRY, JobHistory())]
    store.close()


def test_a_store_on_a_full_disk_is_opened_with_its_jobs(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(DurableFiles):
        def commit(self, connection: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    store = opened(folder)
    store.accept_bytes(ENTRY, b"image").result()
    store.close()
    again = opened(folder, Full())
    assert again.unfinished_jobs().result() == [(ENTRY, JobHistory())]
    assert "until the next start: database or disk is full" in caplog.text
    again.close()


def test_a_file_refused_by_a_full_disk_stays_in_the_inbox(folder: Path, tmp_path: Path) -> None:
    class Full(DurableFiles):
        def create(self, path: Path, data: Bytes) -> None:
            raise OSError(28, "No space left on device")

    store = opened(folder, Full())
    entry, path = from_inbox(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        store.accept_file(entry, path).result()
    assert path.read_bytes() == b"image"
    store.close()


def test_journal_entries_are_dropped_while_the_disk_is_too_slow(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fogmqtt.gateway.storage.writer.MAX_WAITING_BYTES", 25)
    gate, written = threading.Event(), []
    writer = SpoolWriter(written.extend)
    writer.submit(gate.wait)
    for index in range(4):
        writer.append(TileKept("j1", "t", index, "eya", bytes(10)))
    gate.set()
    writer.submit(lambda: None).result()
    writer.append(TileKept("j1", "t", 9, "eya", bytes(10)))
    writer.close()
    assert [entry.tile for entry in written] == [0, 1, 9]
    assert caplog.text.count("the spool's disk is too slow") == 1


# Large images.


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_stored_pixels_are_read_unchanged(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(3).integers(0, 65535, shape, np.uint16)
    pixel_cache.write(DurableFiles(), tmp_path / "j1.pixels", image)
    again = pixel_cache.read(tmp_path / "j1.pixels")
    assert again is not None
    assert np.array_equal(again, image)
    again[0] = 0  # a change of the array must not change the file
    assert np.array_equal(pixel_cache.read(tmp_path / "j1.pixels"), image)


@pytest.mark.parametrize("harm", ["flip", "cut", "header", "nothing there"])
def test_damaged_pixels_are_not_read(tmp_path: Path, harm: str) -> None:
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


def test_the_error_for_a_spool_in_use_names_its_gateway(folder: Path) -> None:
    store = opened(folder)
    with pytest.raises(
        ConfigError, match=rf"another gateway uses .*: mariem \(process {os.getpid()} on "
    ):
        opened(folder)
    store.close()
    opened(folder).close()


def test_a_lock_file_without_an_owner_still_locks(folder: Path) -> None:
    spool = Spool(folder)
    (folder / ".lock").write_bytes(b"\xff not json")
    with pytest.raises(ConfigError, match="the lock file does not name it"):
        Spool(folder)
    spool.close()


def test_the_error_for_a_file_in_place_of_the_folder_names_it(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"")
    with pytest.raises(
        ConfigError, match=r"gateway\.spool: .*spool is not a folder; name a folder"
    ):
        opened(tmp_path / "spool")


def test_a_missing_folder_is_created(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("known", [True, False], ids=["used before", "new"])
def test_the_error_for_an_unwritable_folder_names_it_and_its_owner(
    folder: Path, known: bool, as_nobody: None
) -> None:
    del as_nobody
    with pytest.raises(ConfigError, match=r"cannot write to .*: Permission denied.*this user may"):
        opened(folder if known else folder / "new")


@pytest.fixture
def as_nobody(folder: Path) -> Iterator[None]:
    """Run as a user who may only read the spool."""
    opened(folder).close()
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        _let_others_traverse(folder.parent)
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)


def _let_others_traverse(folder: Path) -> None:
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path.name.startswith(("pytest", "popen", "test")):
            path.chmod(path.stat().st_mode | 0o055)
