"""The container files, built and run step by step without a container engine: tests/containers.py.

A gateway, its broker and a device run with a root that cannot be written, as a user without a
name, and without capabilities. The device joins by the code of an invitation.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests import containers
from tests.containers import ROOT, USER, ContainerImage
from tests.fog import free_port, need, wait_for
from tests.processes import Program


@dataclass
class Containers:
    """Containers of one network; each has a folder /fog that is kept."""

    stages: dict[str, ContainerImage]
    place: Path
    programs: list[Program] = field(default_factory=list)

    def start(
        self, name: str, stage: str, kept: str, *words: str, beside: int | None = None
    ) -> Program:
        log = self.place / f"{name}.log"
        command = self._command(stage, kept, words, beside)
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.programs.append(Program(process, log))
        return self.programs[-1]

    def run(self, stage: str, kept: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = self._command(stage, kept, words, None)
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def is_well(self, program: Program, stage: str, *words: str) -> bool:
        first = containers.first_process(program.process.pid)
        image = self.stages[stage]
        return containers.health(image, first, words or image.health) == 0

    def folder(self, kept: str) -> Path:
        folder = self.place / f"kept-{kept}"
        if not folder.exists():
            folder.mkdir()
            os.chown(folder, USER, USER)
        return folder

    def _command(
        self, stage: str, kept: str, words: tuple[str, ...], beside: int | None
    ) -> list[str]:
        return containers.start_command(self.stages[stage], self.folder(kept), words, beside)

    def close(self) -> None:
        for program in reversed(self.programs):
            if program.running:
                # It has another user, so the kernel does not end it with the program around it.
                for process in psutil.Process(program.process.pid).children(recursive=True):
                    process.kill()
                program.kill()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Containers]:
    need(os.geteuid() == 0, "a root that can be changed", "call this as root")
    need(shutil.which("debootstrap"), "debootstrap", "apt install debootstrap")
    base = containers.debian(ROOT / ".containers")
    stages = containers.build(ROOT / "containers/Dockerfile", base, tmp_path)
    one = Containers(stages, tmp_path)
    yield one
    one.close()


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_a_gateway_a_broker_and_a_device_work_in_what_the_container_files_say(
    made: Containers,
) -> None:
    port, join_port, local_port, page = (free_port() for _ in range(4))
    made.stages["gateway"].environment["FOGMQTT_DASHBOARD__LISTEN"] = f"127.0.0.1:{page}"
    ports = f"--port {port} --join-port {join_port} --local-port {local_port}".split()
    gateway_entry = made.stages["gateway"].entrypoint
    begun = made.run(
        "gateway", "gateway", *gateway_entry, "init", "/fog", "--address", "127.0.0.1", *ports
    )
    assert begun.returncode == 0, begun.stderr

    broker = made.start(
        "broker", "gateway", "gateway", "mosquitto", "-c", "/fog/broker/mosquitto.conf"
    )
    wait_for(lambda: made.is_well(broker, "gateway", "fog-health", "listening"), within=30)
    seen = containers.first_process(broker.process.pid)
    gateway = made.start(
        "gateway", "gateway", "gateway", *gateway_entry, "--config", "/fog/config.yaml", beside=seen
    )
    gateway.says("mariem is online")
    gateway_health = made.stages["gateway"].health
    wait_for(lambda: made.is_well(broker, "gateway", *gateway_health), within=60)

    asked = (*gateway_entry, "--config", "/fog/config.yaml")
    invited = made.run("gateway", "gateway", *asked, "invite", "eya", "-o", "/fog/eya.fog")
    assert invited.returncode == 0, invited.stderr
    code = next(word for word in invited.stdout.split() if word.startswith("FOG1:EYA:"))
    device_entry = made.stages["device"].entrypoint
    device = made.start(
        "device",
        "device",
        "device",
        *device_entry,
        *("--id", "eya", "--join", code, "--gateway", f"127.0.0.1:{join_port}"),
    )
    gateway.says("eya is online", within=60)
    assert made.is_well(device, "device")

    photo = made.folder("gateway") / "photo.png"
    shutil.copy(ROOT / "fogmqtt/cli/photo.png", photo)
    photo.chmod(0o644)
    ran = made.run(
        *("gateway", "gateway", *asked, "run", "photo.png", "-o", "edges.png", "--verify"),
        *("--pipeline", "gray | canny", "--tiles", "grid 2x2", "--report", "report.json"),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads((made.folder("gateway") / "report.json").read_text())
    assert report["differ"] == 0
    assert report["devices"]["eya"]["tiles"] >= 1

    refused = made.run("device", "device", "touch", "/opt/fogmqtt/written")
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr
