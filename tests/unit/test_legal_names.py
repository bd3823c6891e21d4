"""Results on file systems that do not take every name, such as FAT; these play one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fogmqtt.config import GatewaySettings
from fogmqtt.errors import ImageError
from fogmqtt.gateway.server.outbox import Outbox
from fogmqtt.gateway.storage.api import Bytes, JobHistory, SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles, free_path
from fogmqtt.images import files
from fogmqtt.images.file_names import plain_path

FORBIDDEN = set(':?*<>|"\\')


def check(path: Path, longest: int = 255) -> None:
    """Raise OSError as a file system does that does not take the name."""
    if FORBIDDEN & set(path.name):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
    if len(os.fsencode(path.name)) > longest:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))


class Fat(DurableFiles):
    """A disk with FAT."""

    def create(self, path: Path, data: Bytes) -> None:
        check(path)
        super().create(path, data)

    def rename(self, source: Path, target: Path) -> None:
        check(target)
        super().rename(source, target)


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("12:30:05.png", "12_30_05-"),
        ("what?.tiff", "what_-"),
        ('a<b>c|d*e"f\\g.png', "a_b_c_d_e_f_g-"),
        ("tab\there.png", "tab_here-"),
        ("caf\udce9.png", "caf_-"),
        ("写真" * 60 + ".png", "写真" * 12 + "写-"),
        ("x" * 200 + ".jpeg", "x" * 25 + "-"),
        ("...", "image-"),
    ],
)
def test_a_refused_name_becomes_a_similar_one_that_all_take(name: str, begin: str) -> None:
    plain = plain_path(Path("/out") / name)
    assert plain.parent == Path("/out")
    assert plain.name.startswith(begin)
    assert plain.suffix == Path(name).suffix
    check(plain, longest=143)
    plain.name.encode()


def test_two_refused_names_do_not_become_one() -> None:
    assert plain_path(Path("a:b.png")) != plain_path(Path("a?b.png"))


def test_run_writes_under_a_similar_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def on_fat(self: Path, target: Path) -> Path:
        check(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", on_fat)
    written = files.write_bytes(tmp_path / "12:30.png", b"x")
    assert written == plain_path(tmp_path / "12:30.png")
    assert written.read_bytes() == b"x"
    assert [path.name for path in tmp_path.iterdir()] == [written.name]
    assert files.write_bytes(tmp_path / "a.png", b"y").name == "a.png"


def test_another_error_is_no_reason_for_another_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match="cannot write"):
        files.write_bytes(tmp_path / "a.png", b"x")


def test_the_outbox_takes_a_similar_name_and_says_so(tmp_path: Path) -> None:
    outbox = Outbox(GatewaySettings(outbox=str(tmp_path / "out")), None, Fat(), set())
    inbox = tmp_path / "inbox"
    entries = [
        SpoolEntry(job=f"j{n}", name="12:30.jpg", pipeline="gray", inbox=str(inbox))
        for n in range(2)
    ]
    for number, entry in enumerate(entries, 1):
        filed = outbox.put(entry, JobHistory(), b"image", b"facts", suffix=".png")
        path, (note,) = filed.main, filed.notes
        plain = plain_path(Path("12:30.png")).stem
        stem = plain if number == 1 else f"{plain}-2"
        assert path.name == f"{stem}.json"
        assert (tmp_path / "out" / f"{stem}.png").read_bytes() == b"image"
        assert note.startswith(f"written as {stem}.png")
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_legal_name_stays_without_a_note(tmp_path: Path) -> None:
    outbox = Outbox(GatewaySettings(outbox=str(tmp_path)), None, Fat(), set())
    entry = SpoolEntry(job="j1", name="a b.jpg", pipeline="gray", inbox="/inbox")
    filed = outbox.put(entry, JobHistory(), b"x", None, suffix=".png")
    assert (filed.main, filed.notes) == (tmp_path / "a b.png", ())


def test_names_suit_the_longest_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pathconf", lambda folder, name: 143)
    free = free_path(tmp_path / f"{'x' * 140}.png")
    assert len(f".{free.name}.txt.part") <= 143
