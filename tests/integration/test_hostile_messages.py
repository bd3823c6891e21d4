"""Thousands of malformed messages during a job: it is exact, all live, and memory stays."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from fogmqtt.wire.messages import (
    Accepted,
    Call,
    Cancel,
    DeviceInfo,
    Failure,
    GatewayInfo,
    Message,
    Result,
    Returned,
    TileTask,
    encode,
    signed,
)
from tests.fog import Probe
from tests.processes import Fog, Program, edges_of, photo, private_fog, read, same

pytestmark = pytest.mark.broker

#: Of each process, over what it had before; a job's own tiles are in it.
GROWTH_BYTES = 50 * 1024 * 1024
PIXELS = memoryview(bytes(64 * 64))
LEASE: dict[str, Any] = {"job": "j0123456789abcdef.0", "tile": 0, "attempt": 1}
TASK = signed(
    TileTask(
        **LEASE,
        gateway="mariem",
        stage=[Call("invert")],
        shape=(64, 64, 1),
        dtype="uint8",
        core=(0, 0, 64, 64),
        lease_s=30.0,
        pixels=PIXELS,
    )
)
RESULT = signed(Result(**LEASE, shape=(64, 64, 1), dtype="uint8", pixels=PIXELS))
INFO = DeviceInfo(boot="b", sequence=1, uptime_s=1.0, workers=1, operators=["invert"])
VALID: tuple[Message, ...] = (
    TASK,
    RESULT,
    Accepted(**LEASE),
    Failure(**LEASE, reason="no"),
    Returned(**LEASE),
    Cancel(**LEASE, gateway="mariem"),
    INFO,
    GatewayInfo(boot="b", sequence=1, uptime_s=1.0),
)

#: What no field of ours expects.
ODD: tuple[Any, ...] = (
    -1,
    0,
    2**31,
    2**63 - 1,
    1e308,
    "",
    "x" * 3000,
    "../../etc/passwd",
    "\x00",
    [],
    [0, 0, 0],
    [10**6, 10**6, 4],
    {},
    None,
    True,
    [[[]]],
)


def mutants(rng: random.Random, count: int) -> Iterator[bytes]:
    """Messages of ours with something wrong in them, in both encodings."""
    for _ in range(count):
        message = msgspec.to_builtins(rng.choice(VALID), builtin_types=(bytes,))
        message = {key: _plain(value) for key, value in message.items()}
        for _ in range(rng.randint(1, 3)):
            key = rng.choice([*message, "v", "type", "extra"])
            if rng.random() < 0.2:
                message.pop(key, None)
            else:
                message[key] = rng.choice(ODD)
        packed = rng.random() < 0.5
        data = bytearray(
            msgspec.msgpack.encode(message) if packed else json.dumps(message).encode()
        )
        if rng.random() < 0.5:
            data = data[: rng.randrange(len(data))]
        if data and rng.random() < 0.5:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield bytes(data)


def noise(rng: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield rng.randbytes(rng.choice((0, 1, 2, 10, 100, 1000, 20_000)))


def bombs() -> Iterator[bytes]:
    """What is small on the wire and would be large, or deep, in memory."""
    yield b'{"a":' * 100_000
    yield b"[" * 200_000
    yield b"\x91" * 200_000
    yield b"\x81\xa1a" * 100_000
    yield b"\xdd\xff\xff\xff\xff"
    yield b"\xdf\xff\xff\xff\xff"
    yield b"\xc6\xff\xff\xff\xff"
    yield b'{"v": 2, "type": "tile"}'
    yield b'{"v": 99999999999999999999999999, "type": "result"}'
    yield msgspec.msgpack.encode({"v": 7, "type": "result", "future": [1, 2, 3]})
    huge = msgspec.structs.replace(TASK, shape=(1_000_000, 1_000_000, 4), core=(0, 0, 9, 9))
    for codec in ("raw", "png", "planes", "zip", ""):
        yield encode(signed(msgspec.structs.replace(huge, codec=codec)))
        yield encode(
            signed(msgspec.structs.replace(RESULT, codec=codec, shape=(1_000_000, 1_000_000, 4)))
        )
    yield encode(msgspec.structs.replace(INFO, workers=1024, operators=["x" * 64] * 5000))
    yield encode(signed(msgspec.structs.replace(TASK, stage=[Call("resize", {"factor": 100.0})])))
    yield encode(signed(msgspec.structs.replace(TASK, stage=[Call("invert")] * 2000)))
    yield encode(signed(msgspec.structs.replace(TASK, gateway="../x", job="j.0")))
    yield encode(signed(msgspec.structs.replace(TASK, lease_s=float("nan"))))


#: Where both listen, and who else could be there; `{run}` is the gateway at work.
TOPICS = (
    "fog/v1/devices/eya/tiles",
    "fog/v1/devices/eya/control",
    "fog/v1/devices/manar/tiles",
    "fog/v1/devices/ghost/info",
    "fog/v1/devices/ghost/status",
    "fog/v1/devices/Not An Id/info",
    "fog/v1/devices/local/info",
    "fog/v1/gateways/mariem/results/eya",
    "fog/v1/gateways/mariem/results/ghost",
    "fog/v1/gateways/mariem/results/local",
    "fog/v1/gateways/mariem/info",
    "fog/v1/submit/edges/me",
    "fog/v1/submit/no-such/me",
    "fog/v1/submit/edges/" + "y" * 200,
)


@pytest.fixture(scope="module")
def besieged(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    del broker  # skips or fails where Mosquitto is missing
    with private_fog(tmp_path_factory.mktemp("siege")) as fog:
        fog.fleet()
        fog.serve()
        yield fog


def memory(program: Program) -> int:
    return int(psutil.Process(program.process.pid).memory_info().rss)


def besiege(client: Probe, seed: int, count: int) -> int:
    rng = random.Random(seed)
    sent = 0
    for payload in (*mutants(rng, count), *noise(rng, count // 4), *bombs()):
        topic = rng.choice(TOPICS)
        # What is retained on a status or info topic stays for whoever comes; also on tiles.
        client.publish(topic, payload, qos=rng.choice((0, 1)), retain=rng.random() < 0.02)
        sent += 1
    return sent


def warm(fog: Fog, name: str) -> None:
    """One job through everybody, so that what is loaded once is loaded."""
    fog.run(name, "-o", "warm.png", "--tiles", "grid 6x6")
    assert same(read(fog.folder / "warm.png"), edges_of(fog.folder / name))


def test_a_job_under_siege_is_exact_and_everybody_lives(besieged: Fog) -> None:
    fog = besieged
    image = fog.save("in.png", photo())
    warm(fog, "in.png")
    programs = [program for program in fog.programs if program.running]
    before = {program.log.stem: memory(program) for program in programs}
    with (
        fog.probe("fog/v1/replies/good/#", client_id="good") as good,
        fog.probe(client_id="hostile") as hostile,
    ):
        running = fog.start_run(image, "-o", "out.png", "--tiles", "size 40x40", "--verify")
        sent = besiege(hostile, 1, 1500)
        good.publish("fog/v1/submit/edges/good", image.read_bytes())
        sent += besiege(hostile, 2, 1500)
        assert sent > 3500
        assert running.ended() == 0, running.said
        status: dict[str, Any] = {"state": ""}
        while status["state"] not in ("done", "failed"):
            status = json.loads(good.message("fog/v1/replies/good/status", within=60).payload)
        assert status["state"] == "done", status
    assert same(read(fog.folder / "out.png"), edges_of(image))
    for program in programs:
        assert program.running, program.said[-3000:]
        assert "Traceback" not in program.said, program.said[-5000:]
        grown = memory(program) - before[program.log.stem]
        assert grown < GROWTH_BYTES, f"{program.log.stem} grew by {grown:,} bytes"
        assert len(program.said) < 200_000, (
            f"{program.log.stem} said {len(program.said):,} characters"
        )


def test_what_hostile_clients_left_retained_hinders_no_newcomer(besieged: Fog) -> None:
    fog = besieged
    with fog.probe(client_id="litter") as client:
        rng = random.Random(3)
        for topic in (*TOPICS[:7], "fog/v1/devices/late/info", "fog/v1/devices/late/tiles"):
            client.publish(topic, next(noise(rng, 1)) or b"x", retain=True)
    fog.device("late").says("late is online")
    fog.run("in.png", "-o", "after.png", "--tiles", "grid 5x5")
    assert same(read(fog.folder / "after.png"), edges_of(fog.folder / "in.png"))


def test_odd_pixels_of_a_valid_shape_are_still_only_pixels(besieged: Fog) -> None:
    """A picture of extremes, in case somebody reads a meaning into a byte."""
    extremes = np.tile(np.array([0, 255, 128, 127, 1], np.uint8), (60, 40))
    path = besieged.save("extremes.png", extremes)
    ran = besieged.run(path, "-o", "extremes-out.png", "--verify", "--tiles", "size 30x30")
    assert ran.report["differ"] == 0


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value
