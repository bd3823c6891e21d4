"""The device in JavaScript, written from docs/protocol.md alone, works in a real fleet."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import (
    Accepted,
    Call,
    Decoder,
    DeviceInfo,
    Drain,
    Failure,
    FromDevice,
    Rejected,
    Result,
    TileTask,
    encode,
    with_digest,
)
from fogmqtt.wire.topics import OFFLINE, ONLINE
from tests.fog import Probe
from tests.processes import (
    Fog,
    Program,
    photo,
    private_fog,
    read,
    same,
    status_becomes,
    until,
)

pytestmark = [pytest.mark.broker, pytest.mark.proof]

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "examples/device-js"
RESULTS = "fog/v1/gateways/probe/results/nada"
STATUS = "fog/v1/devices/nada/status"
INFO = "fog/v1/devices/nada/info"


@pytest.fixture(scope="session")
def node() -> str:
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.fail("Node and npm are not installed: `make node`, or `apt install nodejs npm`")
    return found


@pytest.fixture(scope="session")
def installed(node: str) -> Path:
    """The device with its packages, in a folder that is kept until its lock file changes."""
    del node
    folder = ROOT / ".venv/device-js"
    lock = folder / "package-lock.json"
    if not lock.exists() or lock.read_bytes() != (SOURCE / "package-lock.json").read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SOURCE, folder / "new", ignore=shutil.ignore_patterns("node_modules"))
        install = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        subprocess.run(install, cwd=folder / "new", check=True, timeout=240)
        for path in (folder / "new").iterdir():
            path.rename(folder / path.name)
        (folder / "new").rmdir()
    for path in SOURCE.glob("*.js"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def fog(broker: object, tmp_path: Path) -> Iterator[Fog]:
    """A broker of its own, and gateways that do not compare fingerprints."""
    del broker
    with private_fog(tmp_path, EXACT="false") as made:
        yield made


@pytest.fixture
def nada(fog: Fog, node: str, installed: Path) -> Program:
    return javascript(fog, node, installed)


def javascript(
    fog: Fog, node: str, folder: Path, *more: str, name: str = "nada", waits: bool = True
) -> Program:
    """Start the device, and wait until it is online unless told otherwise."""
    log = fog.folder / f"{name}-{len(fog.programs)}.log"
    command = [node, folder / "device.js", "--id", name, "--broker", fog.broker.url, *more]
    with log.open("ab") as out:
        program = Program(subprocess.Popen(command, stdout=out, stderr=out), log)
    fog.programs.append(program)
    if waits:
        program.says(f"{name} is online")
    return program


def task(pixels: Image, name: str = "invert") -> TileTask:
    """A tile without a halo for the gateway `probe`."""
    height, width, channels = pixels.shape
    return with_digest(
        TileTask(
            job="k3f09c2a.0",
            tile=4,
            attempt=2,
            gateway="probe",
            stage=[Call(name)],
            shape=(height, width, channels),
            dtype=pixels.dtype.name,  # type: ignore[arg-type]
            core=(0, 0, height, width),
            lease_s=30.0,
            pixels=memoryview(pixels.tobytes()),
        )
    )


def reply(client: Probe) -> FromDevice:
    """The next message of the device about a tile, less the word that it has it."""
    decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)
    while isinstance(message := decoder.decode(client.message(RESULTS).payload), Accepted):
        pass
    return message


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
@pytest.mark.parametrize("encoding", ["binary", "base64"])
def test_it_alone_does_an_exact_job(
    fog: Fog, node: str, installed: Path, protocol: str, qos: str, encoding: str
) -> None:
    javascript(fog, node, installed, "--qos", qos, "--protocol", protocol)
    image = fog.save("in.png", photo())
    ran = fog.run(
        *(image, "-o", "out.png", "--pipeline", "invert", "--tiles", "grid 4x3", "--verify"),
        WIRE__QOS=qos,
        WIRE__ENCODING=encoding,
        BROKER__PROTOCOL=protocol,
    )
    assert same(read(fog.folder / "out.png"), 255 - photo())
    assert ran.report["devices"]["nada"]["tiles"] == 12


def test_its_16_bit_and_threshold_results_are_exact(fog: Fog, nada: Program) -> None:
    deep = photo().astype(np.uint16) * 257
    fog.run(fog.save("deep.png", deep), "-o", "out.png", "--pipeline", "invert")
    assert same(read(fog.folder / "out.png"), 65535 - deep)
    pipeline = "invert | threshold value=99.5 max=200"
    for name, image in (("in.png", photo()), ("deep.png", deep // 257)):
        fog.run(fog.save(name, image), "-o", "out.png", "--pipeline", pipeline)
        inverted = np.iinfo(image.dtype).max - image
        _, expected = cv2.threshold(inverted, 99.5, 200, cv2.THRESH_BINARY)
        assert same(read(fog.folder / "out.png"), expected)


def test_it_gets_no_tile_of_a_dtype_that_it_does_not_announce(fog: Fog, nada: Program) -> None:
    image = fog.save("in.tiff", photo().astype(np.float32) / 255)
    ran = fog.run(
        image, "-o", "out.tiff", "--pipeline", "threshold value=0.5", GATEWAY__LOCAL="auto"
    )
    assert ran.report["devices"].keys() <= {"local"}
    assert same(read(fog.folder / "out.tiff"), cv2.threshold(read(image), 0.5, 255, 0)[1])


def test_a_job_ends_exact_when_one_of_two_is_killed(
    fog: Fog, nada: Program, node: str, installed: Path
) -> None:
    javascript(fog, node, installed, name="zeina")
    image = fog.save("in.png", photo(1920, 2560))
    with fog.probe(RESULTS.replace("probe", "+")) as client:
        run = fog.start_run(
            *(image, "-o", "out.png", "--pipeline", "invert", "--tiles", "size 80x80")
        )
        client.inbox.take(Received)
        nada.kill()
        assert run.ended() == 0, run.said
    assert same(read(fog.folder / "out.png"), 255 - photo(1920, 2560))


def test_it_announces_itself_and_leaves_by_itself_or_by_its_last_will(
    fog: Fog, node: str, installed: Path
) -> None:
    with fog.probe(STATUS, "fog/v1/devices/nada/info") as client:
        first = javascript(fog, node, installed)
        payload = client.message("fog/v1/devices/nada/info").payload
        info = Decoder(DeviceInfo).decode(payload)
        assert (info.sequence, info.operators, info.codecs) == (1, ["invert", "threshold"], ["raw"])
        status_becomes(client, STATUS, ONLINE)
        assert first.stop() == 0
        status_becomes(client, STATUS, OFFLINE)
        second = javascript(fog, node, installed)
        status_becomes(client, STATUS, ONLINE)
        second.kill()
        status_becomes(client, STATUS, OFFLINE)
        third = javascript(fog, node, installed)
        client.publish("fog/v1/devices/nada/control", encode(Drain(), "base64"))
        assert third.ended() == 0


def test_it_comes_back_when_the_broker_does(fog: Fog, nada: Program) -> None:
    fog.broker.kill()
    fog.broker.start()
    image = fog.save("in.png", photo())
    with fog.probe(STATUS) as client:
        status_becomes(client, STATUS, ONLINE)
    fog.run(image, "-o", "out.png", "--pipeline", "invert")
    assert same(read(fog.folder / "out.png"), 255 - photo())


def test_it_refuses_tiles_that_it_cannot_do(fog: Fog, nada: Program) -> None:
    pixels = photo(3, 5)
    with fog.probe(RESULTS) as client:
        for bad, reason in (
            (task(pixels, "canny"), "no operator canny"),
            (task(pixels.astype(np.float32)), "does not do float32"),
            (msgspec.structs.replace(task(pixels), digest="0" * 16), "digest"),
            (with_digest(msgspec.structs.replace(task(pixels), core=(1, 0, 3, 5))), "outside"),
        ):
            client.publish("fog/v1/devices/nada/tiles", encode(bad))
            failure = reply(client)
            assert isinstance(failure, Failure)
            assert (failure.tile, failure.attempt) == (4, 2)
            assert reason in failure.reason
        client.publish("fog/v1/devices/nada/tiles", b"\xc1 no message")
        client.publish("fog/v1/devices/nada/tiles", encode(task(pixels)))
        done = reply(client)
        assert isinstance(done, Result)
        assert bytes(done.pixels) == (255 - pixels).tobytes()


def test_of_two_with_one_id_the_older_one_stays(fog: Fog, node: str, installed: Path) -> None:
    first = javascript(fog, node, installed)
    # The first is older by more than the second's pause before it connects again: infos age
    # by that much before the other agent reads them.
    check_ins(fog, 2)
    second = javascript(fog, node, installed)
    assert second.ended() == 1
    assert "give this one another --id" in second.said
    assert first.running


def test_of_two_with_one_id_that_start_together_one_stays(
    fog: Fog, node: str, installed: Path
) -> None:
    """Each knows an old uptime of the other, so that each may take itself for the older one."""
    both = [javascript(fog, node, installed, waits=False) for _ in range(2)]
    until(lambda: not all(program.running for program in both), "one of two agents left")
    assert [program.running for program in both].count(True) == 1
    stays = next(program for program in both if program.running)
    stays.says("nada is online")
    boots = {info.boot for info in check_ins(fog, 4)[1:]}  # the first may be of the one that left
    assert len(boots) == 1
    assert stays.running


def check_ins(fog: Fog, count: int) -> list[DeviceInfo]:
    """Return the next infos of the device; a retained one counts."""
    with fog.probe(INFO) as client:
        payloads = [client.message(INFO, within=30).payload for _ in range(count)]
    return [msgspec.json.decode(payload, type=DeviceInfo) for payload in payloads]
