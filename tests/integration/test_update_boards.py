"""`fog-gateway update`: a board fetches the gateway's version, and goes back by itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import fogmqtt
from tests.joinable import JoinableFog
from tests.processes import Program

pytestmark = pytest.mark.proof

PACKAGE = Path(fogmqtt.__file__).parent


def package(folder: Path, version: str, *, broken: str = "") -> str:
    """A copy of fogmqtt that calls itself so; `broken` is what its agent does at the start."""
    copy = folder / version / "fogmqtt"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    init = copy / "__init__.py"
    init.write_text(
        init.read_text().replace(f'"{fogmqtt.__version__}"', f'"{version}"'), encoding="utf-8"
    )
    agent = copy / "cli" / "agent.py"
    begin = "    joined = keep_renewed("
    text = agent.read_text()
    assert text.count(begin) == 1
    agent.write_text(text.replace(begin, f"    {broken or 'pass'}\n{begin}"))
    return str(copy.parent)


@pytest.fixture
def fog(broker: object, tmp_path: Path) -> Iterator[JoinableFog]:
    del broker
    made = JoinableFog(tmp_path)
    made.init()
    made.start_broker()
    yield made
    made.close()


def board_that_joined(fog: JoinableFog, **settings: object) -> Program:
    fog.invite("eya")
    versions = fog.folder / "versions"
    joined = fog.try_board("eya", "join", "eya.fog")
    assert joined.returncode == 0, joined.stderr
    board = fog.installed_board("eya", versions, **settings)  # type: ignore[arg-type]
    board.says("eya is online")
    return board


@pytest.mark.timeout(240)
def test_a_board_takes_the_version_of_its_gateway_and_keeps_it(fog: JoinableFog) -> None:
    gateway = fog.serve(PYTHONPATH=package(fog.folder, "9.1.0"))
    board = board_that_joined(fog)
    said = fog.gateway("update", "eya").stdout
    assert "eya is installing fogmqtt 9.1.0" in said
    assert "eya has fogmqtt 9.1.0 now" in said
    assert board.running
    assert fog.gateway("update", "--all").stdout == "all boards have fogmqtt 9.1.0\n"
    # It is the one that runs after a restart, too.
    board.stop()
    again = fog.installed_board("eya", fog.folder / "versions")
    again.says("eya is online")
    assert "eya has fogmqtt 9.1.0 already" in fog.gateway("update", "eya").stdout
    gateway.stop()
    fog.serve(PYTHONPATH=package(fog.folder, "9.0.0"))
    refused = fog.gateway("update", "eya", code=2)
    assert "eya has fogmqtt 9.1.0, and this gateway 9.0.0: boards are not taken" in refused.stderr


def test_a_board_that_has_the_version_is_told_so_however_it_was_installed(
    fog: JoinableFog,
) -> None:
    gateway = fog.serve()
    fog.invite("eya")
    gateway.says("boards can join")
    fog.board("eya", "--join", "eya.fog").says("eya is online")
    said = fog.gateway("update", "eya").stdout
    assert said == f"eya has fogmqtt {fogmqtt.__version__} already\n"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("raise SystemExit(9)", "it ended with exit code 9 before it was online"),
        pytest.param("time.sleep(600)", "it was not online within 5 s", marks=pytest.mark.proof),
    ],
)
def test_a_version_that_does_not_come_online_is_taken_back(
    fog: JoinableFog, broken: str, reason: str
) -> None:
    fog.serve(PYTHONPATH=package(fog.folder, "9.1.0", broken=broken))
    board = board_that_joined(fog, trial_s=5)
    done = fog.gateway("update", "--all", code=1)
    assert f"9.1.0 was taken back, since {reason}" in done.stdout
    assert f"eya stays with fogmqtt {fogmqtt.__version__}" in done.stdout
    assert board.running
    assert fog.gateway("devices").stdout.count("online")
