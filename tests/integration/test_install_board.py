"""The line that `invite` prints, on a machine without fogmqtt, as a user who is not root."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fog import need
from tests.joinable import JoinableFog

NOBODY = 65_534


@pytest.fixture
def fog(broker: object, tmp_path: Path) -> Iterator[JoinableFog]:
    del broker
    made = JoinableFog(tmp_path)
    made.init()
    made.start_broker()
    made.serve()
    yield made
    made.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of a user who is not root. Other users cannot enter those of pytest."""
    with tempfile.TemporaryDirectory(prefix="board-") as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_bare_machine_becomes_a_board_by_the_printed_line_and_is_bare_again(
    fog: JoinableFog, home: Path
) -> None:
    need(Path("/usr/bin/curl").exists(), "curl", "apt install curl")
    user = {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
    said = fog.gateway("invite", "eya", "-o", str(fog.folder / "eya.fog")).stdout
    (line,) = [one.strip() for one in said.splitlines() if one.strip().startswith("curl ")]
    line = line.replace("sudo sh", "sh")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    environment["PIP_NO_COMPILE"] = "1"  # half of the time

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **user,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    where = f"--prefix {home}/opt --root {home}/root"
    said = run(f"{line} {where}")
    assert "joins the gateway mariem as eya" in said
    assert "eya is a board of mariem now" in said
    unit = home / "root/etc/systemd/system/fog-device.service"
    assert f"launch.sh {home}/opt /var/lib/fogmqtt 120 --id eya" in unit.read_text()
    assert list(fog.site.ledger.read().members) == ["eya"]
    # The board runs with what was installed, and nothing of this project's folder.
    board = subprocess.Popen(
        [home / "opt/bin/fog-device", "--id", "eya"],
        cwd=home,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **user,  # type: ignore[call-overload]
    )
    try:
        fog.programs[0].says("eya is online")
    finally:
        board.terminate()
        board.wait(60)
    # The same line again is an update, also from a pipe.
    piped = line.replace(" -o join.sh", "").replace("&& sh join.sh", "| sh -s --")
    assert piped != line
    assert "eya is a board of mariem already" in run(f"{piped} {where}")
    assert "eya is taken away" in run(f"sh join.sh --uninstall {where}")
    assert not (home / "opt").exists()
    assert not unit.exists()
    assert not list((home / ".config/fogmqtt").glob("eya*"))


@pytest.mark.proof
def test_what_a_failed_installation_has_left_is_taken_away(fog: JoinableFog, home: Path) -> None:
    need(Path("/usr/bin/curl").exists(), "curl", "apt install curl")
    said = fog.gateway("invite", "eya").stdout
    (line,) = [one.strip() for one in said.splitlines() if one.strip().startswith("curl ")]
    code = line.split()[-1]
    fetch = line.partition(" && ")[0]
    subprocess.run(["sh", "-c", fetch], cwd=home, check=True)

    def script(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "join.sh", *words, "--prefix", f"{home}/opt"],
            cwd=home,
            env=os.environ | {"PIP_NO_INDEX": "1", "HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )

    failed = script(code)
    assert failed.returncode == 1
    assert "the packages cannot be installed; pip says why above" in failed.stderr
    done = script("--uninstall")
    assert done.returncode == 0, done.stderr
    assert "eya is taken away" in done.stdout
    assert not (home / "opt").exists()
    assert "fogmqtt is not in" in script("--uninstall").stderr
