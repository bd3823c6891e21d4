"""Examined once, then remembered; whatever is wrong with the cache is only a warning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest

from fogmqtt.conformance import cache, runner
from fogmqtt.conformance.cache import KEPT, folder
from fogmqtt.conformance.identity import identity
from fogmqtt.conformance.report import ConformanceReport, Examined
from fogmqtt.conformance.runner import ConformanceRunner

FOUND = ConformanceReport(
    {"gray": Examined("gray", "fogmqtt", "1", {"gray/uint8": "a"}, 2.5)}, [], {}
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fogmqtt"


class Counting(ConformanceRunner):
    """Finds FOUND, or what it is told to, in no time."""

    times = 0
    finding = FOUND

    def _examine(self, *_: object) -> ConformanceReport:
        type(self).times += 1
        return self.finding


@pytest.fixture(autouse=True)
def _nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "times", 0)


def examined() -> ConformanceReport:
    found: SimpleQueue[ConformanceReport] = SimpleQueue()
    Counting(found.put).start()
    return found.get(timeout=10)


def test_what_was_found_once_is_known_at_the_next_start(place: Path) -> None:
    assert Counting(lambda _: None).known() is None
    assert examined() == FOUND
    assert Counting(lambda _: None).known() == FOUND
    assert examined() == FOUND
    assert Counting.times == 1
    assert not list(place.glob("*.new"))


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"operators": 7}', b"\xff" * 100])
def test_a_damaged_file_is_found_out_and_replaced(
    damage: bytes, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    examined()
    (file,) = place.glob("examination-*.json")
    file.write_bytes(damage)
    assert examined() == FOUND
    assert Counting.times == 2
    assert "examining anew" in caplog.text
    assert json.loads(file.read_bytes())["operators"]["gray"]["version"] == "1"


def test_a_folder_that_cannot_be_written_is_a_warning(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("a file where the folder should be")
    assert examined() == FOUND
    assert "operators will be examined at every start" in caplog.text


def test_what_has_a_problem_is_examined_at_every_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what the problem hangs on: a package that is installed later may solve it."""
    monkeypatch.setattr(Counting, "finding", ConformanceReport({}, ["gray: ImportError"], {}))
    examined()
    examined()
    assert Counting.times == 2


def test_programs_that_start_at_once_examine_once(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, may_end = threading.Event(), threading.Event()
    found: SimpleQueue[ConformanceReport] = SimpleQueue()

    def examine(self: ConformanceRunner, *_: object) -> ConformanceReport:
        Counting.times += 1
        busy.set()
        assert may_end.wait(10)
        return FOUND

    monkeypatch.setattr(Counting, "_examine", examine)
    for _ in range(3):
        Counting(found.put).start()
    assert busy.wait(10)
    may_end.set()
    assert [found.get(timeout=10) for _ in range(3)] == [FOUND] * 3
    assert Counting.times == 1


def test_files_of_earlier_versions_do_not_pile_up(place: Path) -> None:
    for number in range(KEPT + 3):
        cache.store(place, f"{number}", FOUND)
        os.utime(place / f"examination-{number}.json", (number, number))
    cache.store(place, "last", FOUND)
    kept = {file.name for file in place.glob("examination-*.json")}
    assert len(kept) == KEPT
    assert "examination-last.json" in kept
    assert "examination-0.json" not in kept


def test_another_code_path_of_opencv_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity()
    assert identity() == before
    monkeypatch.setenv("OPENCV_CPU_DISABLE", "AVX2")
    assert identity() != before


def test_the_folder_follows_the_users_choice_and_no_relative_path(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder() == place
    monkeypatch.setenv("HOME", "/home/eya")
    for odd in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", odd)
        assert folder() == Path("/home/eya/.cache/fogmqtt")


def test_nothing_is_delivered_after_it_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    delivered: list[ConformanceReport] = []
    one = Counting(delivered.append)
    monkeypatch.setattr(runner.ConformanceRunner, "_found", lambda self: self.close() or FOUND)
    one.start()
    one._thread.join(10)
    assert delivered == []


def test_the_process_is_silent_where_whoever_asked_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        ended = subprocess.run(
            [sys.executable, "-m", "fogmqtt.conformance.process", "0", "invert"],
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=60,
            check=True,
        )
    assert ended.stderr == b""
