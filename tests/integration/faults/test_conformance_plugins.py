"""Conformance runs with plug-ins that break the process that imports or runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner, fatal_imports
from fogmqtt.errors import PipelineError
from fogmqtt.operators.api import registry
from tests.conformance import complete_report

SOUND = """
from dataclasses import dataclass
from typing import ClassVar
from fogmqtt.operators.api.base import Operator

@dataclass(frozen=True)
class Same(Operator):
    name: ClassVar[str] = "same"

    def process(self, image):
        return image
"""

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, "utf-8")
        return str(tmp_path / name)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield write
    registry.plug_in(())


def report_of(*modules: str, memory_mb: int = 0, timeout_s: float = 60) -> ConformanceReport:
    registry.plug_in(modules)
    return complete_report(partial(ConformanceRunner, timeout_s=timeout_s, memory_mb=memory_mb))


def test_a_plug_in_that_raises_or_ends_the_process_is_named_and_skipped_alone(
    write: Write,
) -> None:
    fatal = write("fatal.py", "import os; os._exit(3)")
    raising = write("raising.py", "1 / 0")
    report = report_of(fatal, raising, write("sound.py", SOUND))
    assert report.problems == [
        f"plug-in {fatal} is skipped: its import ended with exit code 3",
        f"plug-in {raising} cannot be imported: ZeroDivisionError: division by zero "
        "(raising.py, line 1)",
    ]
    assert "canny/uint8" in report.fingerprints
    assert "same/uint8" in report.fingerprints
    assert report.package_of("same") == "sound.py"
    assert len(report.versions["sound.py"]) == 8


def doing(name: str, statement: str) -> str:
    """Return the source of a plug-in whose operator runs this statement on each image."""
    text = SOUND.replace("Same", "Plugged").replace('"same"', f'"{name}"')
    return text.replace("return image", f"{statement}\n        return image")


def test_operators_that_need_too_much_memory_or_end_the_process_are_left_out_alone(
    write: Write,
) -> None:
    report = report_of(
        write("early.py", doing("a-eater", "kept = [bytearray(8 << 20) for _ in range(10_000)]")),
        write("next.py", doing("b-exiter", "import os; os._exit(4)")),
        write(
            "third.py",
            doing("c-keeper", "'kept' in globals() or globals().update(kept=bytearray(200 << 20))"),
        ),
        write("fourth.py", doing("d-leaver", "raise SystemExit('enough')")),
        write("sound.py", SOUND),
        memory_mb=256,
    )
    assert report.problems == [
        "a-eater: needs more than 256 MB for a small image",
        "b-exiter: its check ended with exit code 4",
    ]
    announced = {"c-keeper/uint8", "d-leaver/uint8", "canny/uint8", "same/uint8"}
    assert announced < report.fingerprints.keys()
    assert not report.fingerprints.keys() & {"a-eater/uint8", "b-exiter/uint8"}


def test_imports_that_end_or_hang_a_process_are_known_before_a_gateway_imports_them(
    write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    exits = write("exits.py", "import os; os._exit(9)")
    crashes = write("crashes.py", "import ctypes; ctypes.string_at(0)")
    raises = write("raises.py", "raise SystemExit('no licence')")
    sound = write("sound.py", f"print('hello'){SOUND}")
    assert fatal([exits, sound, crashes, raises]) == {
        exits: "ended with exit code 9",
        crashes: "was ended by signal 11 (SIGSEGV)",
    }
    assert capfd.readouterr().out == ""
    hangs = write("hangs.py", "import time; time.sleep(1000)")
    assert fatal([hangs], timeout_s=3) == {hangs: "took over 3 s"}
    assert fatal([]) == {}
    report_of(sound)
    assert fatal([sound]) == {}


def fatal(modules: list[str], timeout_s: float = 60) -> dict[str, str]:
    registry.plug_in(modules)
    return fatal_imports(modules, timeout_s=timeout_s)


def test_an_installed_package_that_ends_processes_is_skipped_and_named_too(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("deadly_ops.py", "import os; os._exit(9)")
    write("sound_ops.py", SOUND)
    info = tmp_path / "some_ops-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: some-ops\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text(
        "[fogmqtt.operators]\ndeadly = deadly_ops:Deadly\nsame = sound_ops:Same\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = fatal([])
    assert report == {"deadly_ops:Deadly": "ended with exit code 9"}
    registry.plug_in([], report)
    assert registry.load("same").name == "same"
    with pytest.raises(PipelineError) as caught:
        registry.load("deadly")
    assert str(caught.value).endswith(
        "plug-in deadly_ops:Deadly (some-ops 1.0) is skipped: its import ended with exit code 9"
    )


def test_a_module_that_ends_processes_is_skipped_and_named_in_problems(write: Write) -> None:
    exits = write("exits.py", "import os; os._exit(9)")
    registry.plug_in([exits, write("sound.py", SOUND)], {exits: "ended with exit code 9"})
    assert registry.load("same").name == "same"
    assert registry.problems() == (
        f"plug-in {exits} is skipped: its import ended with exit code 9",
    )
    with pytest.raises(PipelineError, match=r"no operator is called 'other'.*exit code 9"):
        registry.load("other")


def test_a_plug_in_that_needs_too_much_memory_while_it_is_imported_is_named(write: Write) -> None:
    eater = write("eater.py", "kept = [bytearray(8 << 20) for _ in range(10_000)]")
    report = report_of(eater, write("sound.py", SOUND), memory_mb=256)
    assert report.problems == [
        f"plug-in {eater} cannot be imported: MemoryError:  (eater.py, line 1)"
    ]
    assert "same/uint8" in report.fingerprints


def test_an_installed_operator_that_cannot_be_used_is_named_with_its_package(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("broken_ops.py", "import no_such_library")
    write("sound_ops.py", SOUND)
    info = tmp_path / "some_ops-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: some-ops\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text(
        "[fogmqtt.operators]\nbroken = broken_ops:Broken\n"
        "other = sound_ops:Same\nsame = sound_ops:Same\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = report_of()
    assert report.problems == [
        "broken: operator 'broken' cannot be imported from broken_ops:Broken (some-ops 1.0): "
        "ModuleNotFoundError: No module named 'no_such_library' (broken_ops.py, line 1)",
        "other: operator 'other': the class sound_ops:Same (some-ops 1.0) has the name 'same'; "
        "the entry point and the class must have the same name",
    ]
    assert report.versions["some-ops"] == "1.0"
    assert "same/uint8" in report.fingerprints


def test_a_report_is_cached_until_a_plug_in_changes(write: Write) -> None:
    first = write("sound.py", SOUND)
    report = report_of(first)
    assert ConformanceRunner(lambda _: None).cached() == report
    write("sound.py", f"{SOUND}# changed\n")
    assert ConformanceRunner(lambda _: None).cached() is None
    registry.plug_in([])
    assert ConformanceRunner(lambda _: None).cached() is None
