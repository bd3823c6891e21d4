"""Old results and finished originals are deleted if the user wants it, and nothing else ever."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from fogmqtt.config import GatewayConfig, GatewaySettings
from fogmqtt.errors import ConfigError
from fogmqtt.gateway.server.config_checks import check_retention
from fogmqtt.gateway.server.retention import Retention
from fogmqtt.gateway.storage.written_files import NAME, WrittenFiles
from tests.fog import wait_for
from tests.serving import PICTURE, Serving

WEEK_S = 7 * 86_400.0


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def written(tmp_path: Path) -> Iterator[WrittenFiles]:
    made = WrittenFiles(tmp_path)
    yield made
    made.close()


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    folder = tmp_path / "outbox"
    folder.mkdir()
    return folder


def put(written: WrittenFiles, folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"result")
        written.record("outbox", [folder / name])


def aged(tmp_path: Path, days: float) -> None:
    """Let everything in the list be older."""
    with closing(sqlite3.connect(tmp_path / NAME)) as db, db:
        db.execute("UPDATE file SET at = at - ?", (days * 86_400,))


def retention(written: WrittenFiles, outbox: Path, **keys: float) -> Retention:
    settings = GatewaySettings(inbox="", outbox=str(outbox), **keys)  # type: ignore[arg-type]
    return Retention(settings, written)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_too_old_is_deleted_and_counted_in_the_log(
    tmp_path: Path, written: WrittenFiles, outbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(written, outbox, *(f"old-{number}.png" for number in range(250)))
    aged(tmp_path, 8)
    put(written, outbox, "new.png")
    deleted = retention(written, outbox, outbox_keep_s=WEEK_S).look()["outbox"]
    assert (deleted.files, deleted.bytes) == (250, 1500)
    assert names(outbox) == {"new.png"}
    assert f"deleted 250 old file(s), 1500 bytes, in {outbox}" in caplog.text


def test_files_of_others_changed_files_and_links_stay(
    tmp_path: Path, written: WrittenFiles, outbox: Path
) -> None:
    put(written, outbox, "ours.png", "edited.png", "replaced.png", "touched.png", "linked.png")
    (outbox / "theirs.png").write_bytes(b"result")
    os.utime(outbox / "theirs.png", (0, 0))
    (outbox / "edited.png").write_bytes(b"result, edited")
    (outbox / "replaced.png").unlink()
    (outbox / "replaced.png").write_bytes(b"theirs")
    os.utime(outbox / "touched.png")
    (outbox / "linked.png").rename(tmp_path / "elsewhere.png")
    (outbox / "linked.png").symlink_to(tmp_path / "elsewhere.png")
    aged(tmp_path, 8)
    retention(written, outbox, outbox_keep_s=WEEK_S).look()
    assert names(outbox) == {
        "theirs.png",
        "edited.png",
        "replaced.png",
        "touched.png",
        "linked.png",
    }
    assert (tmp_path / "elsewhere.png").exists()


def test_the_oldest_go_until_the_disk_has_room(
    tmp_path: Path, written: WrittenFiles, outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        put(written, outbox, name)
        aged(tmp_path, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 0, 10 - 3 * len(names(outbox))))
    retention(written, outbox, min_free_bytes=4).look()
    assert names(outbox) == {"b.png", "c.png"}
    retention(written, outbox, min_free_bytes=100).look()
    assert names(outbox) == set()


def test_without_a_key_nothing_is_deleted(
    tmp_path: Path, written: WrittenFiles, outbox: Path
) -> None:
    put(written, outbox, "old.png")
    aged(tmp_path, 10_000)
    retention(written, outbox).look()
    assert names(outbox) == {"old.png"}


def test_a_damaged_list_costs_no_file(tmp_path: Path, outbox: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database" * 1000)
    (outbox / "old.png").write_bytes(b"result")
    with closing(WrittenFiles(tmp_path)) as written:
        retention(written, outbox, outbox_keep_s=1.0).look()
    assert names(outbox) == {"old.png"}


def test_a_gateway_records_what_it_puts_into_outbox_and_done(tmp_path: Path) -> None:
    inbox, outbox, spool = (tmp_path / name for name in ("inbox", "outbox", "spool"))
    with Serving(str(spool), inbox=str(inbox), outbox=str(outbox)):
        (inbox / "in.png").write_bytes(PICTURE)
        wait_for(lambda: list(inbox.glob("done/*")), within=60, what="the original in done/")
    with closing(WrittenFiles(spool)) as written:
        for kind, expected in (("outbox", outbox / "in.png"), ("done", inbox / "done/in.png")):
            (found,) = written.oldest(kind, 10)  # type: ignore[arg-type]
            assert found.path == expected
            assert found.is_unchanged()


def test_retention_without_a_spool_is_refused() -> None:
    settings = GatewaySettings(inbox="", spool="", outbox_keep_s=1.0)
    with pytest.raises(ConfigError, match=r"gateway\.spool: it remembers"):
        check_retention(GatewayConfig(gateway=settings))
