"""The inbox folder's rules: what is taken, what is left alone, and for how long."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.gateway.server.inbox import QUIET_S, QUIET_UNFINISHED_S, Inbox
from fogmqtt.gateway.storage.durable_files import free_path

PNG = cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes()
JPEG = cv2.imencode(".jpg", np.zeros((9, 9), np.uint8))[1].tobytes()


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox", ("edges",))


def names(inbox: Inbox, now: float) -> list[str]:
    return [found.path.name for found in inbox.look(now)]


@pytest.mark.parametrize(("name", "data"), [("a.png", PNG), ("a.jpg", JPEG), ("a.bmp", b"BM1")])
def test_a_whole_file_is_taken_once_it_is_quiet(inbox: Inbox, name: str, data: bytes) -> None:
    (inbox.folder / name).write_bytes(data)
    assert names(inbox, 0.0) == []
    assert names(inbox, QUIET_S - 0.1) == []
    assert names(inbox, QUIET_S) == [name]


@pytest.mark.parametrize(("name", "data"), [("a.png", PNG[:-8]), ("a.jpg", JPEG[:-2]), ("a", b"")])
def test_a_file_without_its_end_gets_more_time(inbox: Inbox, name: str, data: bytes) -> None:
    (inbox.folder / name).write_bytes(data)
    inbox.look(0.0)
    assert names(inbox, QUIET_S + 1) == []
    assert names(inbox, QUIET_UNFINISHED_S) == [name]


def test_a_file_that_grows_starts_its_wait_anew(inbox: Inbox) -> None:
    path = inbox.folder / "a.png"
    path.write_bytes(PNG)
    inbox.look(0.0)
    path.write_bytes(PNG + b"more")
    assert names(inbox, QUIET_S) == []
    assert names(inbox, 2 * QUIET_S) == ["a.png"]


def test_a_file_that_somebody_has_open_for_writing_is_left(inbox: Inbox) -> None:
    path = inbox.folder / "a.png"
    path.write_bytes(PNG)
    inbox.look(0.0)
    with path.open("ab"):
        assert names(inbox, 100.0) == []
    assert names(inbox, 101.0) == ["a.png"]


@pytest.mark.parametrize("name", [".hidden.png", "a.png.part", "a.crdownload", "a.TMP"])
def test_names_of_unfinished_files_are_left_alone(inbox: Inbox, name: str) -> None:
    (inbox.folder / name).write_bytes(PNG)
    inbox.look(0.0)
    assert names(inbox, 100.0) == []


def test_folders_of_pipelines_are_looked_into_and_others_are_not(inbox: Inbox) -> None:
    for folder in ("edges", "done", "failed", "holiday"):
        (inbox.folder / folder).mkdir()
        (inbox.folder / folder / "a.png").write_bytes(PNG)
    inbox.look(0.0)
    assert [found.folder for found in inbox.look(QUIET_S)] == ["edges"]


def test_a_file_that_goes_away_is_forgotten(inbox: Inbox) -> None:
    path = inbox.folder / "a.png"
    path.write_bytes(PNG)
    inbox.look(0.0)
    path.unlink()
    assert names(inbox, QUIET_S) == []
    path.write_bytes(PNG)
    os.utime(path, (1, 1))
    assert names(inbox, 2 * QUIET_S) == []


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for expected in ("a.png", "a-2.png", "a-3.png"):
        free = free_path(path)
        assert free.name == expected
        free.write_bytes(b"")
