"""What the programs need of a system is named in one sentence where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A 32-bit Python. Packages that have no wheels for it cannot be imported.
PYTHON_32_BIT = """
import sys
sys.maxsize = 2**31 - 1
sys.modules |= dict.fromkeys(("cv2", "msgspec", "numpy", "PIL", "xxhash", "yaml"))
from fogmqtt.cli import start
sys.exit(start.{program}())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this code, to its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("program", ["gateway", "device"])
def test_a_32_bit_python_is_refused_in_one_sentence_before_anything_is_loaded(program: str) -> None:
    ended = run(PYTHON_32_BIT.format(program=program))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"fog-{program}: 64-bit system needed: ")


@pytest.mark.parametrize("program", ["gateway", "device"])
def test_a_64_bit_python_starts_the_program(program: str) -> None:
    code = f"from fogmqtt.cli.start import {program}; import sys; sys.exit({program}())"
    ended = run(code, "--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"fog-{program} ")


@pytest.mark.parametrize("program", ["gateway", "device"])
def test_a_missing_package_is_named_in_one_sentence(program: str) -> None:
    code = "import sys; sys.modules['msgspec'] = None; from fogmqtt.cli import start; "
    ended = run(f"{code}start.{program}()")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert ": a package is missing: " in line
    assert "msgspec" in line
    assert "pip install" in line


def test_an_operator_whose_package_is_missing_is_refused_in_one_sentence() -> None:
    code = without("zxingcpp")
    ended = run(code, "operators", "codes")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: the operator codes lacks a package here: ")
    assert "zxingcpp" in line
    listed = run(code, "operators")
    assert listed.returncode == 0
    assert "skipped: the operator codes lacks a package" in listed.stdout


def test_without_opencv_a_command_that_needs_it_says_so_in_one_sentence() -> None:
    ended = run(without("cv2"), "operators", "codes")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: a package is missing: ")
    assert "cv2" in line
    assert "pip install" in line


def without(package: str) -> str:
    """Return a program that is fog-gateway where a package is not installed."""
    return (
        f"import sys; sys.modules['{package}'] = None; from fogmqtt.cli.gateway import main; "
        "sys.exit(main(sys.argv[1:]))"
    )


@pytest.mark.parametrize("program", ["gateway", "device"])
def test_windows_is_refused_in_one_sentence_before_anything_is_loaded(program: str) -> None:
    hidden = ("fcntl", "pwd", "resource", "cv2", "msgspec", "numpy", "PIL", "xxhash", "yaml")
    code = (
        f"import sys; sys.platform = 'win32'; sys.modules |= dict.fromkeys({hidden!r}); "
        f"from fogmqtt.cli import start; start.{program}()"
    )
    ended = run(code)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"fog-{program}: it does not run on Windows")
    assert "WSL" in line


#: Not filled in, so there is no gateway.
JOIN_SCRIPT = ROOT / "fogmqtt" / "joining" / "join.sh"


def install(folder: Path, *, bits: int) -> subprocess.CompletedProcess[str]:
    """Run join.sh where Python has this many bits, whatever the kernel has."""
    python = folder / "python3"
    code = f"import sys; sys.maxsize = 2**{bits - 1} - 1; exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$2"\n')
    python.chmod(0o755)
    return subprocess.run(
        ["sh", str(JOIN_SCRIPT), "FOG1:EYA:A:B", "--prefix", str(folder / "opt")],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_install_script_refuses_a_32_bit_system_before_it_changes_anything(
    tmp_path: Path,
) -> None:
    ended = install(tmp_path, bits=32)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("join.sh: 64-bit system needed")
    assert not (tmp_path / "opt").exists()


def test_the_install_script_goes_on_with_a_64_bit_python(tmp_path: Path) -> None:
    ended = install(tmp_path, bits=64)
    assert ended.returncode == 1
    assert "gives no package" in ended.stderr
    assert "64-bit" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("gateway", "man", "fog-gateway"),
        ("gateway", "--config", "config.yaml", "man", "fog-device"),
        ("device", "--id", "eya", "service", "install", "--dry-run"),
    ],
)
def test_a_reader_who_ends_first_is_no_error(arguments: tuple[str, ...]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    program, *rest = arguments
    try:
        ended = subprocess.run(
            [sys.executable, "-m", f"fogmqtt.cli.{program}", *rest],
            cwd=ROOT,
            stdout=writes,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writes)
    assert (ended.returncode, ended.stderr) == (141, "")
