"""`launch.sh`: which version of a board's agent runs. The environments here are shell scripts."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from fogmqtt.joining.versions import LAUNCHER, Versions
from tests.fog import wait_for

#: What an agent does that comes online; it ends by SIGTERM.
ONLINE = 'trap "exit 0" TERM; touch "$versions/online"; while :; do sleep 0.1; done'


class Board:
    """A folder with versions, and what was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = Versions(folder / "versions")
        self.versions.folder.mkdir()
        self.base = self.environment(folder / "base", "exit 0")

    def environment(self, folder: Path, agent: str) -> Path:
        python = folder / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(
            f"#!/bin/sh\nversions={self.versions.folder}\n"
            f'echo "{folder.name} $*" >>{self.folder}/started\n{agent}\n'
        )
        python.chmod(0o755)
        return folder

    def version(self, name: str, agent: str) -> None:
        self.environment(self.versions.environment(name), agent)
        self.versions.choose(name)

    def launch(self, seconds: int = 30) -> subprocess.Popen[bytes]:
        command = ["sh", LAUNCHER, self.base, self.versions.folder, str(seconds), "--id", "eya"]
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
        )

    @property
    def started(self) -> list[str]:
        path = self.folder / "started"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def end_of(launched: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, said = launched.communicate(timeout=60)
    return launched.returncode, said.decode()


def test_the_installed_version_runs_and_its_exit_code_is_kept(board: Board) -> None:
    board.environment(board.base, "exit 3")
    assert end_of(board.launch())[0] == 3
    assert board.started == ["base"]
    assert board.versions.base == board.base.resolve()
    (line,) = (board.folder / "started").read_text().splitlines()
    assert line.endswith(f"-m fogmqtt.cli.device --id eya --versions {board.versions.folder}")


def test_an_agent_is_started_again_when_it_asks_for_it(board: Board) -> None:
    board.environment(board.base, "[ -e $versions/x ] && exit 4; touch $versions/x; exit 75")
    assert end_of(board.launch())[0] == 4
    assert board.started == ["base", "base"]


def test_a_new_version_that_comes_online_is_kept(board: Board) -> None:
    board.version("9.1.0", ONLINE)
    launched = board.launch()
    wait_for(lambda: (board.versions.folder / "current").exists())
    launched.terminate()
    assert end_of(launched)[0] == 0
    (board.versions.folder / "online").unlink()
    launched = board.launch()
    wait_for(lambda: (board.versions.folder / "online").exists())
    launched.terminate()
    assert end_of(launched)[0] == 0
    assert board.started == ["9.1.0", "9.1.0"]
    assert board.versions.refused == ("", "")


@pytest.mark.parametrize(
    ("agent", "seconds", "reason"),
    [
        ("exit 7", 30, "it ended with exit code 7 before it was online"),
        ("exec sleep 60", 1, "it was not online within 1 s"),
        ("trap '' TERM; sleep 3; exit 1", 1, "it was not online within 1 s"),
    ],
)
def test_a_new_version_that_does_not_come_online_is_taken_back(
    board: Board, agent: str, seconds: int, reason: str
) -> None:
    board.version("9.1.0", agent)
    code, said = end_of(board.launch(seconds))
    assert code == 0
    assert f"fogmqtt 9.1.0 is taken back: {reason}" in said
    assert board.started == ["9.1.0", "base"]
    assert board.versions.refused == ("9.1.0", reason)
    board.versions.clear()
    assert board.versions.refused == ("", "")
    assert not board.versions.environment("9.1.0").exists()


def test_a_board_that_went_off_during_a_trial_goes_back(board: Board) -> None:
    board.version("9.1.0", "exec sleep 60")
    launched = board.launch()
    wait_for(lambda: board.started == ["9.1.0"])
    os.killpg(launched.pid, signal.SIGKILL)
    end_of(launched)
    assert end_of(board.launch())[0] == 0
    assert board.started == ["9.1.0", "base"]
    assert board.versions.refused[1] == "the board went off before it was online"


def test_a_board_with_a_read_only_system_runs_what_was_installed(board: Board) -> None:
    (board.versions.folder).rmdir()
    (board.versions.folder).write_text("no folder can be made here")
    code, said = end_of(board.launch())
    assert code == 0
    assert "cannot be written, so no gateway can update this board" in said
    assert board.started == ["base"]


def test_a_trial_that_somebody_ends_is_tried_again(board: Board) -> None:
    board.version("9.1.0", "exec sleep 60")
    launched = board.launch()
    wait_for(lambda: board.started == ["9.1.0"])
    launched.terminate()
    end_of(launched)
    board.version("9.1.0", "exit 1")
    end_of(board.launch())
    assert board.started == ["9.1.0", "9.1.0", "base"]


def test_an_environment_that_a_new_python_made_useless_gives_way(board: Board) -> None:
    (board.versions.folder / "current").write_text("9.1.0\n")
    assert end_of(board.launch())[0] == 0
    assert board.started == ["base"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_agent_and_then_the_launcher(board: Board, number: int) -> None:
    board.environment(board.base, ONLINE)
    launched = board.launch()
    wait_for(lambda: (board.versions.folder / "online").exists())
    launched.send_signal(number)
    assert end_of(launched)[0] == 0
