"""The parties as real processes, each with a wire of its own to a real broker; harm on request."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.schedule import BROKER, DEVICES, GATEWAY, PARTIES, Schedule
from tests.fog import RealBroker
from tests.misbehaving import workers_of
from tests.processes import Fog, Program
from tests.weather import FAIR, Weather

#: Pixels per second of a device, so that most faults meet a job in its middle.
SPEED = 150_000
_DISK_MB = 48

PIPELINES = {
    "edges": "gray | canny low=50 high=150",
    "twice": "gray | canny low=50 high=150 | dilate ksize=3",
    "soft": "gray | median ksize=5",
    "levels": "gray | otsu",
    "flaky": "gray | unruly how=crash times=1",
    "stutter": "gray | unruly how=hang times=1",
    "raises": "gray | unruly how=raises",
    "crash": "gray | unruly how=crash",
    "eat": "gray | unruly how=eat",
    "hang": "gray | unruly how=hang",
}
#: Impatient, so that a run of faults is over within a minute; every count is as shipped.
SETTINGS = {
    "GATEWAY__LOCAL_AFTER": "3",
    "GATEWAY__DELIVER": "both",
    "GATEWAY__INBOX": "",
    "TILES": "size 200x150",
    "BROKER__KEEPALIVE_S": "5",
    "BROKER__CONNECT_TIMEOUT_S": "5",
    "SCHEDULER__FIRST_LEASE_S": "4",
    "SCHEDULER__QUARANTINE_S": "1",
    "DEVICE__CHECKIN_S": "2",
    "DEVICE__WORKER_MEMORY_MB": "128",
}
_PERSISTENT = """\
persistence true
persistence_location {folder}/
autosave_interval 1
autosave_on_changes true
"""


@dataclass
class World:
    """Everybody, and what was done to them. One thread."""

    fog: Fog
    links: dict[str, Weather]
    #: Whether the spool is a small disk of its own, which can be filled.
    own_disk: bool
    alive: dict[str, Program] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    #: Who ended by itself, with its last words.
    left: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.fog.folder

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def start(self, party: str) -> None:
        """Start a party that is not there."""
        if party == BROKER:
            if self.fog.broker.process is None:
                self.fog.broker.start()
            return
        if party in self.alive:
            return
        url = self.links[party].url
        self.alive[party] = (
            self.fog.serve_with(self.folder / "chaos.yaml", BROKER__URL=url)
            if party == GATEWAY
            else self.fog.device(party, "--emulate-speed", str(SPEED), BROKER__URL=url)
        )

    def kill(self, party: str) -> None:
        if party == BROKER:
            self.fog.broker.kill()
            return
        self._notice_leavers()
        program = self.alive.pop(party, None)
        if program is not None:
            program.kill()

    def freeze(self, party: str) -> None:
        self._signal(party, signal.SIGSTOP)

    def thaw(self, party: str) -> None:
        self._signal(party, signal.SIGCONT)

    def kill_worker(self, device: str) -> None:
        """End one of a device's workers, as a kernel without memory does."""
        program = self.alive.get(device)
        if program is None or not program.running:
            return
        for worker in workers_of(program.process.pid)[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()

    def fill_disk(self) -> None:
        if not self.own_disk:
            return
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass

    def empty_disk(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def mend(self) -> None:
        """The end of all harm: everybody is there and can talk."""
        self._notice_leavers()
        for party in PARTIES:
            self.thaw(party)
        for link in self.links.values():
            link.become(FAIR)
        self.empty_disk()
        for party in (BROKER, GATEWAY, *DEVICES):
            self.start(party)

    def restart_leavers(self) -> None:
        """What a service manager does."""
        for party in self._notice_leavers():
            self.start(party)

    @property
    def _ballast(self) -> Path:
        return self.spool / "ballast"

    def _signal(self, party: str, number: signal.Signals) -> None:
        process = self.fog.broker.process if party == BROKER else None
        if party in self.alive:
            process = self.alive[party].process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def _notice_leavers(self) -> list[str]:
        leavers = [party for party, program in self.alive.items() if not program.running]
        for party in leavers:
            program = self.alive.pop(party)
            self.left.append(f"{party} ended by itself: {program.said[-2000:]}")
        return leavers


@contextmanager
def world_of(schedule: Schedule, folder: Path) -> Iterator[World]:
    """A world in which nothing bad has happened yet: everybody is online."""
    os.environ.setdefault("XDG_CACHE_HOME", str(folder / "cache"))
    broker = _broker(schedule, folder)
    plugin = folder / "unruly.py"
    shutil.copy(Path(__file__).with_name("unruly.py"), plugin)
    lines = "".join(f"  {name}: {pipeline}\n" for name, pipeline in PIPELINES.items())
    (folder / "chaos.yaml").write_text(f"pipelines:\n{lines}", "utf-8")
    (folder / "spool").mkdir()
    wire = {
        "BROKER__PROTOCOL": schedule.protocol,
        "WIRE__ENCODING": schedule.encoding,
        "GATEWAY__LOCAL": schedule.local,
    }
    fog = Fog(folder, broker, SETTINGS | wire | {"PLUGINS": str(plugin)})
    links = {
        party: Weather(broker.port, schedule.seed * 10 + number)
        for number, party in enumerate((GATEWAY, *DEVICES))
    }
    with _small_disk(folder / "spool") as own_disk:
        world = World(fog, links, own_disk)
        try:
            broker.start()
            _everybody_online(world)
            yield world
        finally:
            for party in PARTIES:
                world.thaw(party)
            fog.close()
            for link in links.values():
                link.close()
            broker.kill()


def _everybody_online(world: World) -> None:
    for party in (GATEWAY, *DEVICES):
        world.start(party)
    for party, program in world.alive.items():
        program.says(f"{party} is online")


def _broker(schedule: Schedule, folder: Path) -> RealBroker:
    home = folder / "broker"
    home.mkdir()
    more = _PERSISTENT.format(folder=home) if schedule.persistence else ""
    return RealBroker(home, more=more)


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """Put a small file system at `folder` where we may; says whether it is there."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "fogmqtt-chaos", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
