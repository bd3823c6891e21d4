"""Whoever may write into the inbox cannot make the gateway read, write or empty other folders."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fogmqtt.errors import FogError
from fogmqtt.gateway.storage.api import SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles, write
from fogmqtt.gateway.storage.held_folder import held_folder, is_own, linked_file
from fogmqtt.gateway.storage.job_store import DiskJobStore


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder that the inbox's users must not reach."""
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"secret")
    return folder


@pytest.fixture
def store(tmp_path: Path, inbox: Path) -> Iterator[DiskJobStore]:
    made = DiskJobStore(tmp_path / "spool", "mariem", keep_s=100.0, inbox=inbox)
    yield made
    made.close()


def entry(folder: Path, name: str = "a.png", job: str = "j1") -> SpoolEntry:
    return SpoolEntry(job=job, name=name, pipeline="invert", inbox=str(folder), source="inbox")


def accept(store: DiskJobStore, path: Path, job: str = "j1") -> SpoolEntry:
    one = entry(path.parent, path.name, job)
    store.accept_file(one, path).result(30)
    return one


def test_a_subfolder_that_became_a_link_is_not_emptied(
    store: DiskJobStore, inbox: Path, secret: Path
) -> None:
    (inbox / "edges").symlink_to(secret)
    with pytest.raises(OSError, match="no link"):
        accept(store, inbox / "edges" / "a.png")
    assert (secret / "a.png").read_bytes() == b"secret"
    assert store.unfinished_jobs().result(30) == []


@pytest.mark.parametrize(("leaf", "error"), [("done", None), ("failed", "a reason")])
def test_a_link_in_the_place_of_done_or_failed_gets_no_files(
    store: DiskJobStore, inbox: Path, secret: Path, leaf: str, error: str | None
) -> None:
    (inbox / "a.png").write_bytes(b"image")
    one = accept(store, inbox / "a.png")
    (inbox / leaf).symlink_to(secret)
    with pytest.raises(OSError, match="no link"):
        store.finish(one, error).result(30)
    assert sorted(path.name for path in secret.iterdir()) == ["a.png"]
    assert store.image_path("j1").read_bytes() == b"image", "it is not lost"
    (inbox / leaf).unlink()
    store.finish(one, error).result(30)
    assert (inbox / leaf / "a.png").read_bytes() == b"image"


def test_links_that_wait_for_an_unfinished_file_are_not_written_through(
    store: DiskJobStore, inbox: Path, secret: Path
) -> None:
    (inbox / "a.png").write_bytes(b"image")
    one = accept(store, inbox / "a.png")
    (inbox / "failed").mkdir()
    for name in (".a.png.txt.part", ".a.png.part", "a.png.txt", "a.png"):
        (inbox / "failed" / name).symlink_to(secret / "a.png")
    original = store.finish(one, "a reason").result(30).original
    assert original is not None
    assert original.read_bytes() == b"image"
    assert (secret / "a.png").read_bytes() == b"secret"


def test_a_pipe_in_the_place_of_a_file_is_refused_and_nobody_waits(
    store: DiskJobStore, inbox: Path
) -> None:
    os.mkfifo(inbox / "a.png")
    with pytest.raises(FogError, match="no regular file"):
        accept(store, inbox / "a.png")
    os.mkfifo(inbox / "pipe")
    (inbox / "b.png").symlink_to("pipe")
    with pytest.raises((FogError, OSError), match="no regular file"):
        accept(store, inbox / "b.png", "j2")
    assert store.unfinished_jobs().result(30) == []


def test_a_link_of_the_gateways_own_user_to_a_file_is_taken_and_its_target_stays(
    store: DiskJobStore, inbox: Path, secret: Path
) -> None:
    (inbox / "link.png").symlink_to("../secret/a.png")
    accept(store, inbox / "link.png")
    assert store.image_path("j1").read_bytes() == b"secret"
    assert not os.path.lexists(inbox / "link.png")
    assert (secret / "a.png").exists()


def test_a_link_of_another_user_is_no_link_of_ours(inbox: Path, secret: Path) -> None:
    (inbox / "link.png").symlink_to(secret / "a.png")
    status = list((inbox / "link.png").lstat())
    for owner, own in ((os.geteuid(), True), (0, True), (os.geteuid() + 4711, False)):
        status[4] = owner
        assert is_own(os.stat_result(status)) is own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
def test_a_link_of_another_user_is_refused(store: DiskJobStore, inbox: Path, secret: Path) -> None:
    (inbox / "link.png").symlink_to(secret / "a.png")
    os.lchown(inbox / "link.png", 4711, 4711)
    with pytest.raises(FogError, match="a link of another user"):
        accept(store, inbox / "link.png")
    assert linked_file(secret / "a.png") is None


def test_a_folder_that_is_exchanged_while_it_is_held_changes_nothing(
    inbox: Path, secret: Path
) -> None:
    with held_folder(inbox, inbox / "edges" / "done", make=True) as folder:
        (inbox / "edges").rename(inbox / "old")
        (inbox / "edges").symlink_to(secret)
        write(DurableFiles(), folder / "a.png", b"image")
    assert (inbox / "old" / "done" / "a.png").read_bytes() == b"image"
    assert (secret / "a.png").read_bytes() == b"secret"


def test_no_exchange_at_any_moment_lets_a_file_out(
    store: DiskJobStore, inbox: Path, secret: Path
) -> None:
    """An attacker swaps the subfolder with a link all the time, while images come."""
    stop = threading.Event()
    real, link = inbox / "edges", inbox / "other"
    real.mkdir()
    link.symlink_to(secret)
    (secret / "b.png").write_bytes(b"secret")

    def swap() -> None:
        while not stop.is_set():
            for source, target in (("edges", "x"), ("other", "edges"), ("x", "other")):
                (inbox / source).rename(inbox / target)

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for number in range(200):
            try:
                accept(store, real / "b.png", f"j{number}")
            except (OSError, FogError):
                continue
    finally:
        stop.set()
        attacker.join()
    assert (secret / "b.png").read_bytes() == b"secret"
