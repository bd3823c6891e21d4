"""Plug-ins: configured modules and files, and installed packages."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from fogmqtt.errors import PipelineError
from fogmqtt.operators.api import registry

FADE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from fogmqtt.operators.api.base import Operator

@dataclass(frozen=True)
class Fade(Operator):
    name: ClassVar[str] = "fade"
    amount: float = 0.5

    def process(self, image):
        return image
"""

#: A measuring operator without the methods that gather its parts.
COUNT = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from fogmqtt.operators.api.measuring import Measuring, Part

@dataclass(frozen=True)
class Count(Measuring):
    name: ClassVar[str] = "count"

    def measure(self, image, core, seams):
        return Part()
"""

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return str(path)

    registry.plug_in(())
    yield write
    registry.plug_in(())
    for name in [name for name in sys.modules if str(tmp_path) in name]:
        del sys.modules[name]


def install(folder: Path, package: str, *entries: str, version: str = "1.0") -> None:
    """Write the metadata of an installed package with these entry points."""
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    )
    info.joinpath("entry_points.txt").write_text("\n".join(("[fogmqtt.operators]", *entries)))
    info.joinpath("RECORD").write_text("")


def test_the_operators_of_a_file_have_names_and_parameters(write: Write) -> None:
    registry.plug_in([write("ops.py", FADE)])
    assert registry.build("fade", {"amount": "0.25"}).params() == {"amount": 0.25}
    assert "fade" in registry.names()
    assert registry.problems() == ()


def test_the_operators_of_a_module_have_the_version_of_its_package(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("fading/__init__.py", "")
    write("fading/ops.py", FADE)
    install(tmp_path, "fading", version="2.1")
    (tmp_path / "fading-2.1.dist-info" / "top_level.txt").write_text("fading")
    monkeypatch.syspath_prepend(tmp_path)
    registry.plug_in(["fading.ops"])
    assert registry.load("fade").name == "fade"
    assert str(registry.origin("fade")) == "fading 2.1"


def test_a_files_version_is_its_own_or_a_hash_of_the_file(write: Write) -> None:
    silent = write("silent.py", FADE)
    registry.plug_in([silent])
    before = registry.origin("fade")
    assert before.package == "silent.py"
    write("silent.py", FADE + "# changed\n")
    registry.plug_in([silent])
    assert registry.origin("fade").version != before.version
    registry.plug_in([write("telling.py", FADE + "__version__ = '0.3'\n")])
    assert registry.origin("fade").version == "0.3"


def test_plugging_in_imports_nothing(write: Write) -> None:
    path = write("ops.py", f"raise SystemExit\n{FADE}")
    registry.plug_in([path])
    assert "fade" not in registry.names()
    assert path not in sys.modules


def test_an_agent_with_plug_ins_loads_no_pixel_library(write: Write) -> None:
    code = (
        "import sys, fogmqtt.agent.service; from fogmqtt.operators.api import registry as c;"
        f"c.plug_in([{write('ops.py', FADE)!r}]); c.names();"
        "assert not {'cv2', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero (broken.py, line 1)"),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_named_and_skipped(
    write: Write, text: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = write("broken.py", text), write("sound.py", FADE)
    registry.plug_in([broken, sound])
    with caplog.at_level(logging.WARNING):
        (problem,) = registry.problems()
    assert f"{broken} cannot be imported: {reason}" in problem
    assert broken in caplog.text
    assert registry.load("fade").name == "fade"
    assert registry.load("gray").name == "gray"


def test_the_error_for_an_unknown_operator_names_the_skipped_plug_ins(
    write: Write,
) -> None:
    broken = write("vignette.py", "1 / 0")
    registry.plug_in([broken])
    with pytest.raises(PipelineError, match=r"'vignette'.*vignette.py cannot be imported: Zero"):
        registry.load("vignette")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("@dataclass(frozen=True)", "", "Fade of .* is not a dataclass; write @dataclass"),
        ("@dataclass(frozen=True)", "@dataclass", "cannot inherit non-frozen dataclass"),
        ('"fade"', '"Fade it"', "its name is 'Fade it': a name has"),
        ('"fade"', '"gray"', "two operators are called 'gray': the built-in one is used, Fade of"),
        ('"fade"', '""', "defines no operator"),
        ("def process", "def proces", "Fade of .* is skipped: it has no method 'process', which"),
    ],
)
def test_a_class_that_is_not_an_operator_is_skipped_with_a_reason(
    write: Write, before: str, after: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry.plug_in([write("ops.py", FADE.replace(before, after))])
    with caplog.at_level(logging.WARNING):
        problems = registry.problems()
    assert len(problems) == 1
    assert re.search(reason, problems[0])


def test_a_measuring_operator_needs_its_own_methods(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    registry.plug_in([write("ops.py", COUNT)])
    with caplog.at_level(logging.WARNING):
        (problem,) = registry.problems()
    assert "Count of" in problem
    assert "it has no method 'gather'" in problem


def test_of_two_modules_with_one_operator_the_first_is_used(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = write("one.py", FADE), write("two.py", FADE)
    registry.plug_in([first, second])
    with caplog.at_level(logging.WARNING):
        (problem,) = registry.problems()
    assert problem == (
        f"two operators are called 'fade': Fade of {first} is used, Fade of {second} is skipped; "
        "rename it"
    )
    assert registry.load("fade").__module__ == first


def test_of_two_packages_with_one_operator_the_first_by_name_is_used(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write("late/fade_ops.py", FADE)
    install(tmp_path / "late", "a-package", "fade = fade_ops:Fade")
    install(tmp_path / "early", "z-package", "fade = other_ops:Fade")
    for folder in ("late", "early"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    assert "fade" in {entry.name for entry in metadata.entry_points(group="fogmqtt.operators")}
    registry.plug_in(())
    with caplog.at_level(logging.WARNING):
        (problem,) = registry.problems()
    assert "fade_ops:Fade (a-package 1.0) is used" in problem
    assert "other_ops:Fade (z-package 1.0) is skipped" in problem
    assert str(registry.origin("fade")) == "a-package 1.0"


def test_a_module_that_a_package_registers_too_is_not_a_conflict(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("fade_twice.py", FADE)
    install(tmp_path, "fading", "fade = fade_twice:Fade")
    monkeypatch.syspath_prepend(tmp_path)
    registry.plug_in(["fade_twice"])
    assert registry.problems() == ()
    assert str(registry.origin("fade")) == "fading 1.0"
