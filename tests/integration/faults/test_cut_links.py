"""Jobs while a link is cut, or a gateway is stopped: nobody is blamed, and little time is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import pytest

from tests.fog import RealBroker, wait_for
from tests.hearing import Hearing, hearing
from tests.netns import Network, network
from tests.processes import DEVICES, Fog, Program, edges_of, fog_at, photo, read, same

pytestmark = [pytest.mark.broker, pytest.mark.serial, pytest.mark.proof]

#: Pixels per second of each of three devices: the job takes them about 12 seconds.
SPEED = 20_000
SIZE, TILES = (720, 1000), "size 100x90"
#: More than the time after which a silent device is lost.
LONG_S = 24.0


@dataclass(frozen=True)
class Place:
    """Machines for a broker, a gateway and three devices, and a job that is in its middle."""

    net: Network
    fog: Fog
    heard: Hearing
    run: Program
    path: Path
    out: Path

    def ends_exact(self) -> None:
        assert self.run.ended(within=120) == 0, self.run.said
        assert same(read(self.out), edges_of(self.path))

    def blames_nobody(self) -> None:
        assert "quarantine" not in self.run.said
        assert "is lost" not in self.run.said


@contextmanager
def machines(folder: Path, speed: float = 500_000) -> Iterator[tuple[Network, Fog, Hearing]]:
    """A broker, a place for a gateway, and three devices that are online."""
    with ExitStack() as opened:
        net = opened.enter_context(network("broker", "gateway", *DEVICES))
        address = net.address("broker")
        broker = RealBroker(folder, more=f"listener 1884 {address}")
        with net.inside("broker"):
            broker.start()
            opened.callback(broker.kill)
            heard = opened.enter_context(hearing(broker.url))
        fog = opened.enter_context(fog_at(folder, broker, BROKER__URL=f"mqtt://{address}:1884"))
        for name in DEVICES:
            with net.inside(name):
                fog.device(name, "--emulate-speed", str(speed)).says(f"{name} is online")
        with net.inside("gateway"):
            fog.examined()
        yield net, fog, heard


@contextmanager
def in_the_middle_of_a_job(folder: Path) -> Iterator[Place]:
    with machines(folder, SPEED) as (net, fog, heard):
        path, out = fog.save("in.png", photo(*SIZE)), folder / "out.png"
        with net.inside("gateway"):
            run = fog.start_run(path, "-o", out, "--tiles", TILES)
        heard.wait_for_results(12)
        yield Place(net, fog, heard, run, path, out)


def lost_s(heard: Hearing) -> float:
    """The longest time between two results: what a fault in the middle of a job costs."""
    times = [at for _, _, at in heard.results]
    longest_s = max(after - before for before, after in pairwise(times))
    print(f"no result for {longest_s:.1f} s, {len(times)} results of {len(heard.sent)} tiles sent")
    return longest_s


def cut(place: Place, seconds: float, *machines: str) -> None:
    place.net.unplug(*machines)
    time.sleep(seconds)
    place.net.plug(*machines)


def harm(folder: Path, what: Callable[[Place], object], most_s: float) -> Place:
    folder.chmod(0o755)
    with in_the_middle_of_a_job(folder) as place:
        what(place)
        place.ends_exact()
        place.blames_nobody()
        assert lost_s(place.heard) < most_s
    return place


@pytest.mark.parametrize(
    ("rate", "bytes_per_s", "size", "least", "copies"),
    [
        ("256kbit", 32_000, (400, 600), 0.75, 0),
        ("1mbit", 125_000, (800, 1200), 0.75, 0),
        # A device that is late at the end of a job costs a copy of its tile, and the link has room.
        # A busy machine needs its time for the tiles, too.
        ("10mbit", 1_250_000, (2400, 3600), 0.6, 4),
    ],
)
def test_most_of_a_slow_link_is_tiles_that_count(
    broker: object,
    tmp_path: Path,
    rate: str,
    bytes_per_s: int,
    size: tuple[int, int],
    least: float,
    copies: int,
) -> None:
    tmp_path.chmod(0o755)
    with machines(tmp_path, 2_000_000) as (net, fog, heard):
        net.limit("gateway", rate)
        path, out = fog.save("in.png", photo(*size)), fog.folder / "out.png"
        with net.inside("gateway"):
            run = fog.start_run(path, "-o", out, "--pipeline", "median ksize=5")
        assert run.ended(within=240) == 0, run.said
    assert same(read(out), cv2.medianBlur(read(path), 5))
    once = {one.key: one for one in reversed(heard.sent)}
    sizes = sum(one.nbytes for one in once.values()) - heard.sent[0].nbytes
    seconds = heard.sent[-1].at - heard.sent[0].at
    used = sizes / (seconds * bytes_per_s)
    print(f"{rate}: {len(once)} tiles in {seconds:.1f} s use {used:.2f} of the link")
    print(f"{heard.resent} sent twice")
    assert heard.resent <= copies
    assert used >= least
    assert "quarantine" not in run.said


def test_a_gateway_that_is_killed_while_its_link_is_cut_goes_on_soon_after_its_start(
    broker: object, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    with machines(tmp_path, SPEED) as (net, fog, heard):
        fog.settings |= {"TILES": TILES, "PIPELINES__EDGES": "gray | canny low=50 high=150"}
        folders = {f"GATEWAY__{name.upper()}": name for name in ("spool", "inbox", "outbox")}
        for name in folders.values():
            (tmp_path / name).mkdir()
        with net.inside("gateway"):
            gateway = fog.serve(**folders)
        path = fog.save("in.png", photo(*SIZE))
        expected = edges_of(path)
        path.rename(tmp_path / "inbox" / "in.png")
        heard.wait_for_results(12)
        net.unplug("gateway")
        gateway.kill()
        with net.inside("gateway"):
            gateway = fog.start_serving(**folders)
        time.sleep(5)
        net.plug("gateway")
        gateway.says("in.png: done in", within=120)
        assert same(read(tmp_path / "outbox" / "in.png"), expected)
        assert "is lost" not in gateway.said
        assert "quarantine" not in gateway.said
        assert lost_s(heard) < 11


def test_a_cut_of_5_seconds_of_the_gateways_link_costs_little_more(
    broker: object, tmp_path: Path
) -> None:
    harm(tmp_path, lambda place: cut(place, 5, "gateway"), 9)


def test_a_cut_of_5_seconds_of_all_devices_costs_little_more(
    broker: object, tmp_path: Path
) -> None:
    harm(tmp_path, lambda place: cut(place, 5, *DEVICES), 9)


def test_a_long_cut_of_the_gateways_link_blames_nobody(broker: object, tmp_path: Path) -> None:
    harm(tmp_path, lambda place: cut(place, LONG_S, "gateway"), LONG_S + 5)


def test_a_fleet_that_was_away_works_again_at_once(broker: object, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with in_the_middle_of_a_job(tmp_path) as place:
        cut(place, 20, *DEVICES)
        place.ends_exact()
        assert "quarantine" not in place.run.said
        assert lost_s(place.heard) < 20 + 5


def test_a_gateway_with_a_new_address_goes_on_within_25_seconds(
    broker: object, tmp_path: Path
) -> None:
    harm(tmp_path, lambda place: place.net.move("gateway"), 25)


def test_a_device_with_a_new_address_works_again_within_25_seconds(
    broker: object, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    with in_the_middle_of_a_job(tmp_path) as place:
        place.net.move(DEVICES[0])
        moved_at = time.monotonic()
        with place.net.inside("gateway"):
            more = [place.fog.start_run(place.path, "-o", place.out) for _ in range(2)]

        def works_again() -> bool:
            results = list(place.heard.results)
            return any(by == DEVICES[0] and at > moved_at + 1 for _, by, at in results)

        wait_for(works_again, within=25, what="a result of the device")
        place.ends_exact()
        for run in more:
            assert run.ended(within=120) == 0, run.said


def test_a_gateway_that_was_stopped_reads_before_it_judges(broker: object, tmp_path: Path) -> None:
    def stop(place: Place) -> None:
        place.run.signal(signal.SIGSTOP)
        time.sleep(LONG_S)
        place.run.signal(signal.SIGCONT)

    harm(tmp_path, stop, LONG_S + 5)
