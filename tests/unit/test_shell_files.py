"""Completion for shells and manual pages are made from the parsers, so they name what there is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fogmqtt.cli.gateway import main
from fogmqtt.cli.shell_files import parser_of

PROGRAMS = ("fog-gateway", "fog-device", "fog-dashboard")
FILES = {"bash": "{}", "zsh": "_{}", "fish": "{}.fish"}
#: Each is asked whether its files parse where it is installed.
SHELLS = [shell for shell in FILES if shutil.which(shell)]
#: Completes the words that it is given, the last one half typed, as bash does at a press of Tab.
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
"_shtab_${1//-/_}" "$1" "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(folder: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    command = ["bash", "-c", COMPLETE, "bash", str(folder / words[0]), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completions")
    for shell in FILES:
        assert main(["completion", shell, "-o", str(folder)]) == 0
    return folder


def test_each_shell_has_a_file_for_each_program(completions: Path) -> None:
    expected = {name.format(program) for name in FILES.values() for program in PROGRAMS}
    assert {path.name for path in completions.iterdir()} == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_parses_in_its_shell(shell: str, completions: Path) -> None:
    for program in PROGRAMS:
        subprocess.run([shell, "-n", completions / FILES[shell].format(program)], check=True)


def test_bash_completes_commands_options_and_their_values(completions: Path) -> None:
    assert completed(completions, "fog-gateway", "inv") == {"invite", "invites"}
    assert completed(completions, "fog-gateway", "run", "--ver") == {"--verify"}
    assert completed(completions, "fog-gateway", "stream", "--keep", "") == {
        "all",
        "keys",
        "latest",
    }
    assert completed(completions, "fog-device", "service", "un") == {"uninstall"}
    assert completed(completions, "fog-dashboard", "--lis") == {"--listen"}


def test_bash_completes_the_names_of_files(completions: Path) -> None:
    assert completed(completions, "fog-gateway", "--config", "_fog-g") == {"_fog-gateway"}


def test_a_hidden_option_is_not_offered(completions: Path) -> None:
    assert "--emulate-speed" not in (completions / "fog-device").read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_manual_page_names_every_command_and_option(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["man", program]) == 0
    page = capsys.readouterr().out.replace(r"\-", "-").replace(r"\fB", "").replace(r"\fR", "")
    helped = parser_of(program).format_help()
    for word in helped.split():
        if (word.startswith("--") and word != "--help") or word in ("completion", "service"):
            assert word.strip("[],:") in page
    assert ".SH EXIT CODES" in page
    assert "emulate" not in page


def test_manual_pages_are_written_where_man_finds_them(tmp_path: Path) -> None:
    assert main(["man", "-o", str(tmp_path / "man1")]) == 0
    for program in PROGRAMS:
        page = tmp_path / f"man1/{program}.1"
        lines = page.read_text("utf-8").splitlines()
        assert lines[0].startswith(rf".TH {program.upper()} 1 ".replace("-", r"\-"))
        # A line that begins so is a request to roff.
        assert {line.split()[0] for line in lines if line.startswith((".", "'"))} <= {
            *(".TH", ".SH", ".SS", ".PP", ".TP", ".nf", ".fi")
        }
        if shutil.which("groff"):
            command = ["groff", "-man", "-Tutf8", "-Kutf8", "-P-c", "-ww", page]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert done.stderr == ""


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["man", "-o", str(tmp_path / "file")]) == 2
    assert f"{tmp_path}/file/fog-gateway.1: " in capsys.readouterr().err


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version_is_told_with_that_of_python_and_opencv(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    with pytest.raises(SystemExit) as ended:
        parser_of(program).parse_args(["--version"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert [line.split()[0] for line in lines] == [
        program,
        "Python",
        "OpenCV",
        *(["broker:"] if program == "fog-gateway" else []),
    ]
