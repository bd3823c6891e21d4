"""A conformance run is cached and always ends with a report; cache faults are only warnings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest

from fogmqtt.conformance import cache, runner
from fogmqtt.conformance.cache import MOST_FILES, folder
from fogmqtt.conformance.child import ConformanceChild
from fogmqtt.conformance.identity import identity
from fogmqtt.conformance.order import FREQUENT, in_order
from fogmqtt.conformance.report import ConformanceReport, OperatorReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.operators.api import registry
from tests.conformance import complete_report

REPORT = ConformanceReport(
    {"gray": OperatorReport("gray", "fogmqtt", "1", {"gray/uint8": "a"}, 2.5)}, [], {}
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fogmqtt"


class CountingRunner(ConformanceRunner):
    """Counts its runs; each gives `result` at once."""

    times = 0
    result = REPORT

    def _check_all(self, *_: object) -> ConformanceReport:
        type(self).times += 1
        return self.result


@pytest.fixture(autouse=True)
def _nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountingRunner, "times", 0)


def report_of_run(lock_timeout_s: float = 10) -> ConformanceReport:
    reports: SimpleQueue[ConformanceReport] = SimpleQueue()
    CountingRunner(reports.put, lock_timeout_s=lock_timeout_s).start()
    return reports.get(timeout=10)


def test_a_report_is_cached_for_the_next_start(place: Path) -> None:
    assert CountingRunner(lambda _: None).cached() is None
    assert report_of_run() == REPORT
    assert CountingRunner(lambda _: None).cached() == REPORT
    assert report_of_run() == REPORT
    assert CountingRunner.times == 1
    assert not list(place.glob("*.new"))


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"operators": 7}', b"\xff" * 100])
def test_a_damaged_cache_file_is_replaced(
    damage: bytes, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report_of_run()
    (file,) = place.glob("conformance-*.json")
    file.write_bytes(damage)
    assert report_of_run() == REPORT
    assert CountingRunner.times == 2
    assert "the operators are checked again" in caplog.text
    assert json.loads(file.read_bytes())["operators"]["gray"]["version"] == "1"


def test_a_folder_that_cannot_be_written_is_a_warning(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("a file where the folder should be")
    assert report_of_run() == REPORT
    assert "operators will be checked at every start" in caplog.text


def test_a_report_with_a_problem_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed later may solve the problem."""
    monkeypatch.setattr(CountingRunner, "result", ConformanceReport({}, ["gray: ImportError"], {}))
    report_of_run()
    report_of_run()
    assert CountingRunner.times == 2


def test_programs_that_start_together_run_the_checks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, may_end = threading.Event(), threading.Event()
    found: SimpleQueue[ConformanceReport] = SimpleQueue()

    def check_all(self: ConformanceRunner, *_: object) -> ConformanceReport:
        CountingRunner.times += 1
        busy.set()
        assert may_end.wait(10)
        return REPORT

    monkeypatch.setattr(CountingRunner, "_check_all", check_all)
    for _ in range(3):
        CountingRunner(found.put).start()
    assert busy.wait(10)
    may_end.set()
    assert [found.get(timeout=10) for _ in range(3)] == [REPORT] * 3
    assert CountingRunner.times == 1


def test_the_oldest_cache_files_are_deleted(place: Path) -> None:
    for number in range(MOST_FILES + 3):
        cache.store(place, f"{number}", REPORT)
        os.utime(place / f"conformance-{number}.json", (number, number))
    cache.store(place, "last", REPORT)
    kept = {file.name for file in place.glob("conformance-*.json")}
    assert len(kept) == MOST_FILES
    assert "conformance-last.json" in kept
    assert "conformance-0.json" not in kept


def test_another_code_path_of_opencv_is_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity()
    assert identity() == before
    monkeypatch.setenv("OPENCV_CPU_DISABLE", "AVX2")
    assert identity() != before


def test_the_cache_folder_is_xdg_cache_home_unless_that_is_relative(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder() == place
    monkeypatch.setenv("HOME", "/home/eya")
    for odd in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", odd)
        assert folder() == Path("/home/eya/.cache/fogmqtt")


def test_a_closed_runner_delivers_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    delivered: list[ConformanceReport] = []
    one = CountingRunner(delivered.append)
    monkeypatch.setattr(runner.ConformanceRunner, "_report", lambda self: self.close() or REPORT)
    one.start()
    one._thread.join(10)
    assert delivered == []


def test_the_process_ends_silently_if_its_parent_has_ended() -> None:
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


# A run takes half a minute on a small board: what is checked is reported and kept at once.

#: The report of a run that was ended after its first operator.
PART = ConformanceReport(
    {"gray": OperatorReport("gray", "fogmqtt", "1", {"gray/uint8": "kept"}, 2.5)},
    unchecked=["invert", "canny"],
)


def test_the_first_report_comes_when_the_frequent_operators_are_checked() -> None:
    reports: SimpleQueue[ConformanceReport] = SimpleQueue()
    ConformanceRunner(reports.put).start()
    first = reports.get(timeout=60)
    assert set(first.operators) == set(FREQUENT)
    assert first.unchecked == in_order(registry.names())[len(FREQUENT) :]
    assert all(one.fingerprints for one in first.operators.values())
    while not (last := reports.get(timeout=60)).is_complete:
        pass
    assert sorted(last.operators) == list(registry.names())
    assert first.fingerprints.items() <= last.fingerprints.items()


def test_slow_checks_come_last_and_none_is_forgotten() -> None:
    ordered = in_order(registry.names())
    assert sorted(ordered) == list(registry.names())
    assert ordered[-2:] == ["codes", "denoise"]
    assert in_order(["plugged", "denoise", "canny"]) == ["canny", "plugged", "denoise"]


def test_a_run_that_is_ended_keeps_what_is_checked_for_the_next_one(place: Path) -> None:
    reports: SimpleQueue[ConformanceReport] = SimpleQueue()
    ended = ConformanceRunner(reports.put)
    ended.start()
    first = reports.get(timeout=60)
    ended.close()
    ended._thread.join(60)
    assert ConformanceRunner(lambda _: None).cached() is None
    assert cache.load(place, identity()) == first


def test_a_run_checks_only_what_the_cache_lacks(place: Path) -> None:
    cache.store(place, identity(), PART)
    reports: SimpleQueue[ConformanceReport] = SimpleQueue()
    ConformanceRunner(reports.put).start()
    assert reports.get(timeout=60) == PART
    last = reports.get(timeout=60)
    assert last.is_complete
    assert list(last.operators) == ["gray", "invert", "canny"]
    assert last.fingerprints["gray/uint8"] == "kept"
    assert ConformanceRunner(lambda _: None).cached() == last


def test_whoever_waits_for_another_program_hears_of_what_that_has_checked(place: Path) -> None:
    reports: SimpleQueue[ConformanceReport] = SimpleQueue()
    waiting = CountingRunner(reports.put, lock_timeout_s=60)
    with stopped_process_with_the_lock(place):
        cache.store(place, identity(), PART)
        waiting.start()
        assert reports.get(timeout=10) == PART
    assert reports.get(timeout=10) == REPORT


# A run that cannot be done as usual. A gateway starts no job before it has a report.


@contextmanager
def stopped_process_with_the_lock(place: Path) -> Iterator[None]:
    """Another process that holds the lock and has been stopped by SIGSTOP."""
    place.mkdir(parents=True)
    code = (
        "import fcntl, pathlib, signal, os, sys;"
        "file = pathlib.Path(sys.argv[1]).open('w'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    )
    command = [sys.executable, "-c", code, str(place / "conformance.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            os.waitpid(process.pid, os.WUNTRACED)
            yield
        finally:
            process.kill()


def test_a_stopped_process_that_holds_the_lock_only_delays_the_run(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stopped_process_with_the_lock(place):
        assert report_of_run(lock_timeout_s=0.2) == REPORT
        assert "another program has held the lock for 0.2 s" in caplog.text
        assert CountingRunner(lambda _: None).cached() == REPORT


def test_a_runner_that_waits_for_the_lock_can_be_closed(place: Path) -> None:
    reports: list[ConformanceReport] = []
    waiting = CountingRunner(reports.append, lock_timeout_s=60)
    with stopped_process_with_the_lock(place):
        waiting.start()
        waiting.close()
        waiting._thread.join(10)
    assert not waiting._thread.is_alive()
    assert reports == []


def report_of_real_run() -> ConformanceReport:
    return complete_report(ConformanceRunner)


def test_a_process_that_cannot_be_started_gives_a_report_with_the_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    report = report_of_real_run()
    assert report.operators == {}
    (problem,) = report.problems
    assert problem.startswith("operators cannot be checked: the process could not be run: ")
    assert "/nonexistent/python" in problem


@pytest.mark.parametrize("part", ["identity", "ConformanceChild"])
def test_a_run_that_raises_gives_a_report_with_the_problem_and_logs_a_traceback(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(runner, part, fail)
    report = report_of_real_run()
    assert report == ConformanceReport(problems=["operators cannot be checked: out of order"])
    (record,) = (one for one in caplog.records if one.levelname == "ERROR")
    assert record.getMessage() == "the conformance run failed"
    assert record.exc_info is not None


def test_a_process_that_lives_on_after_it_closed_its_output_is_given_up(
    tmp_path: Path,
) -> None:
    module = tmp_path / "closes.py"
    module.write_text("import os, time; os.closerange(1, 64); time.sleep(1000)")
    registry.plug_in([str(module)])
    try:
        report = complete_report(partial(ConformanceRunner, timeout_s=3))
    finally:
        registry.plug_in(())
    assert report.fatal == {str(module): "took over 3 s"}
    assert "canny/uint8" in report.fingerprints


def without(package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this package be missing in the child processes of this test."""
    (folder / "sitecustomize.py").write_text(
        "import sys\nfrom importlib import metadata\n"
        f"sys.modules[{package!r}] = None\n"
        "def version(name):\n    raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = version\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_an_operator_whose_package_is_missing_is_named_and_the_others_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("zxingcpp", tmp_path, monkeypatch)
    with ConformanceChild((), ("codes", "invert")) as child:
        output = child.collect(60)
    codes, invert = output.reports
    assert codes.problem.startswith("codes: the operator codes lacks a package here: ")
    assert "zxingcpp" in codes.problem
    assert invert.fingerprints
    assert not invert.problem


def test_without_opencv_the_report_says_so_and_no_traceback_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    without("cv2", tmp_path, monkeypatch)
    reports: SimpleQueue[ConformanceReport] = SimpleQueue()
    ConformanceRunner(reports.put).start()
    (problem,) = reports.get(timeout=60).problems
    assert problem.startswith("operators cannot be checked: ")
    assert "cv2" in problem
    assert capfd.readouterr().err == ""
