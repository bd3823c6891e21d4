"""Ctrl-C and SIGTERM at any moment: one line, no traceback, and nothing is left behind.

The moments begin when a program of ours handles signals, before it imports anything else. What a
signal does while Python itself starts is Python's: a few hundredths of a second.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.fog import free_port, wait_for
from tests.processes import PATIENCE_S, Fog, photo, private_fog

pytestmark = [pytest.mark.broker, pytest.mark.serial]

#: Seconds in which the moments lie: by then every command is at work.
LONGEST_S = 2.5
FEW, MANY = 3, 10
#: What a serving gateway makes.
SERVING = {"inbox", "outbox", "spool"}

#: Name → program, arguments, exit codes, and folders that stay.
COMMANDS: dict[str, tuple[str, tuple[str, ...], set[str]]] = {
    "run": ("fog-gateway", ("run", "in.png", "-o", "out/"), set()),
    "run alone": ("fog-gateway", ("run", "in.png", "-o", "out/"), set()),
    "verify": ("fog-gateway", ("verify", "in.png"), set()),
    "devices": ("fog-gateway", ("devices",), set()),
    "demo": ("fog-gateway", ("demo",), set()),
    "serve": ("fog-gateway", (), SERVING),
    "serve alone": ("fog-gateway", (), SERVING),
    "device": ("fog-device", ("--id", "manar"), set()),
}


@pytest.fixture(scope="module")
def busy(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """A broker, and a device that is slow, so that no job ends before the signal."""
    del broker
    with private_fog(tmp_path_factory.mktemp("busy")) as made:
        made.fleet("eya", speed=50_000)
        yield made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_at_some_moment(
    busy: Fog, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    for seed in range(FEW):
        interrupt(busy, tmp_path, command, number, seed)


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_at_any_moment(
    busy: Fog, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    for seed in range(FEW, FEW + MANY):
        interrupt(busy, tmp_path, command, number, seed)


def interrupt(fog: Fog, tmp_path: Path, command: str, number: signal.Signals, seed: int) -> None:
    """Start a command in a folder of its own, send the signal, and check what is left."""
    program, arguments, stays = COMMANDS[command]
    folder = tmp_path / str(seed)
    (folder / "tmp").mkdir(parents=True)
    (folder / "in.png").write_bytes(fog.save("in.png", photo(600, 800)).read_bytes())
    after_s = random.Random(f"{command} {seed}").uniform(0, LONGEST_S)
    mark = uuid.uuid4().hex
    with (folder / "said").open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(program)), *arguments],
            cwd=folder,
            env=environment(fog, command, folder, mark),
            stdout=out,
            stderr=out,
            start_new_session=True,  # as a terminal, the signal is for all in the group
        )
        wait_for(lambda: handles_signals(process), within=PATIENCE_S, what="the start of Python")
        time.sleep(after_s)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait(PATIENCE_S)
    said = (folder / "said").read_text("utf-8", "replace")
    where = f"{command}, seed {seed}, after {after_s:.3f} s: exit {process.returncode}: {said}"
    assert "Traceback" not in said, where
    assert "Exception" not in said, where
    assert " ERROR " not in said, where
    assert said.count("interrupted") <= 1, where
    # SIGTERM itself ends a program that has nothing to undo yet.
    assert process.returncode in (0, 130, -number), where
    if process.returncode == 130:
        assert said.splitlines()[-1] == "interrupted", where
    wait_for(lambda: not left_running(mark), within=5, what=f"the end of all: {where}")
    left = {path.name for path in folder.iterdir()} - {"in.png", "said", "tmp"} - stays
    finished = {"run": {"out"}, "run alone": {"out"}, "demo": {"demo"}}.get(command, set())
    # What was finished at that moment stays, and it is whole: nothing is named ".part".
    assert left <= finished, where
    assert not list((folder / "tmp").iterdir()), where
    assert not list(folder.rglob("*.part")), where


def handles_signals(process: subprocess.Popen[bytes]) -> bool:
    """Whether it handles SIGTERM, as Python by itself does not."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return True
    (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> signal.SIGTERM - 1 & 1)


def environment(fog: Fog, command: str, folder: Path, mark: str) -> dict[str, str]:
    settings = {"TMPDIR": str(folder / "tmp"), "TEST_MARK": mark, "PYTHONUNBUFFERED": "1"}
    if command.endswith("alone"):
        settings |= {
            "FOGMQTT_BROKER__URL": f"mqtt://127.0.0.1:{free_port()}",
            "FOGMQTT_BROKER__EMBEDDED": "auto",
            "FOGMQTT_GATEWAY__LOCAL": "auto",
        }
    return fog._env({}) | settings


def left_running(mark: str) -> list[str]:
    """The processes that one of ours started and that still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TEST_MARK") == mark:
                found.append(f"{process.pid} {process.name()}")
    return found
