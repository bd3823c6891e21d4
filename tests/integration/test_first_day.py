"""The section about open networks of the README, as printed: two machines are network namespaces.

What apt, git, pip and systemd do is not repeated. All other lines are taken from the page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import pytest

from tests.fog import mosquitto, need, wait_for
from tests.processes import PATIENCE_S, edges_of, photo, read, same

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text().split("### On a network where")[1].split("\n## ")[0]
LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    for line in block.splitlines()
]
GATEWAY, BOARD = "10.213.74.1", "10.213.74.2"
#: /etc/mosquitto/mosquitto.conf of Debian 12, with other places for its files.
DEBIAN = """
persistence true
persistence_location {folder}/store/
log_dest stderr
include_dir {folder}/conf.d
"""


def line(begin: str) -> str:
    """The only line of the section that begins like this."""
    (found,) = (one for one in LINES if one.startswith(begin))
    return found


@dataclass
class Machine:
    """A network namespace, and the programs that run in it."""

    name: str
    folder: Path
    programs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: list[str], said: str) -> Path:
        """Start a program, and return the file with what it says."""
        log = self.folder / said
        with log.open("wb") as out:
            process = subprocess.Popen(
                self._inside(command), cwd=self.folder, stdout=out, stderr=out
            )
        self.programs.append(process)
        return log

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            self._inside(command),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def _inside(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """The gateway's machine and a board, with a cable between them."""
    need(mosquitto(), "Mosquitto", "sudo apt install mosquitto")
    need(
        shutil.which("ip") and os.geteuid() == 0, "iproute2, and root", "sudo apt install iproute2"
    )
    mark = uuid.uuid4().hex[:6]
    names = f"fog-{mark}-a", f"fog-{mark}-b"
    made = tuple(Machine(name, tmp_path / name) for name in names)
    for machine in made:
        machine.folder.mkdir()
        ip("netns", "add", machine.name)
    ip(
        "link",
        "add",
        f"v{mark}a",
        "netns",
        names[0],
        "type",
        "veth",
        "peer",
        f"v{mark}b",
        "netns",
        names[1],
    )
    for machine, end, address in zip(made, "ab", (GATEWAY, BOARD), strict=True):
        ip("-n", machine.name, "address", "add", f"{address}/24", "dev", f"v{mark}{end}")
        for link in ("lo", f"v{mark}{end}"):
            ip("-n", machine.name, "link", "set", link, "up")
    yield made[0], made[1]
    for machine in made:
        for program in machine.programs:
            program.terminate()
        for program in machine.programs:
            program.wait(PATIENCE_S)
        ip("netns", "delete", machine.name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=PATIENCE_S)


def start_mosquitto(machine: Machine, *, with_open_conf: bool) -> None:
    """Start Debian's service, with the file of the README or as it comes."""
    folder = machine.folder
    for name in ("conf.d", "store"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    if with_open_conf:
        copied = re.match(r"sudo cp (\S+) /etc/mosquitto/conf\.d/ &&", line("sudo cp"))
        assert copied
        shutil.copy(ROOT / copied[1], folder / "conf.d")
    (folder / "mosquitto.conf").write_text(DEBIAN.format(folder=folder))
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o755)  # it gives up being root
    log = machine.start([mosquitto() or "", "-c", str(folder / "mosquitto.conf")], "mosquitto.log")
    says(log, " running")


def says(log: Path, text: str) -> None:
    wait_for(
        lambda: text in log.read_text("utf-8", "replace"),
        within=PATIENCE_S,
        what=f"{text!r} in {log.read_text('utf-8', 'replace')}",
    )


def printed(begin: str) -> list[str]:
    """A command of the page, with what a reader must put in."""
    command = line(begin).split("#")[0].replace("GATEWAY", GATEWAY)
    words = re.findall(r'"[^"]*"|\S+', command)
    program = Path(sys.executable).with_name(words[0].removeprefix(".venv/bin/"))
    return [str(program), *(word.strip('"') for word in words[1:])]


def test_the_page_installs_into_an_environment_and_opens_the_broker() -> None:
    assert line("python3 -m venv") == "python3 -m venv .venv && .venv/bin/pip install ."
    assert line("sudo cp").endswith("&& sudo systemctl restart mosquitto")
    assert not [one for one in LINES if one.startswith("pip ")]  # PEP 668


def test_a_board_on_the_network_does_a_job_of_the_gateway(
    machines: tuple[Machine, Machine],
) -> None:
    gateway, board = machines
    start_mosquitto(gateway, with_open_conf=True)
    shutil.copy(ROOT / "config.yaml", gateway.folder)
    device = board.start(printed(".venv/bin/fog-device"), "device.log")
    serving = gateway.start(printed(".venv/bin/fog-gateway"), "gateway.log")
    says(device, f"eya is online at mqtt://{GATEWAY}:1883")
    says(serving, "eya is online")

    def is_examined() -> bool:
        listed = gateway.run([*printed(".venv/bin/fog-gateway"), "devices", "--json"])
        return not json.loads(listed.stdout)["eya"].get("conformance_running")

    wait_for(is_examined, within=PATIENCE_S, what="the examination of the board's operators")
    assert cv2.imwrite(str(gateway.folder / "photo.jpg"), photo())
    command = printed("fog-gateway --config config.yaml run photo.jpg -o edges.png")
    ran = gateway.run([*command, "--tiles", "grid 2x2", "--verify"])
    assert ran.returncode == 0, ran.stderr
    assert same(read(gateway.folder / "edges.png"), edges_of(gateway.folder / "photo.jpg"))
    assert "eya 4" in ran.stderr


def test_without_that_file_debians_broker_is_for_its_own_machine_only(
    machines: tuple[Machine, Machine],
) -> None:
    gateway, board = machines
    start_mosquitto(gateway, with_open_conf=False)
    device = board.start(printed(".venv/bin/fog-device"), "device.log")
    says(device, f"nothing listens at {GATEWAY}:1883")
