"""Devices that nobody has: eleven thousand retained ids and their infos, and a fog that goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from fogmqtt.wire.messages import DeviceInfo, encode
from tests.fog import Probe
from tests.processes import Fog, Program, edges_of, photo, private_fog, read, same

pytestmark = pytest.mark.broker

GHOSTS = 5_500
#: What a flood may leave behind in the gateway's memory, and what a second one may add.
FIRST_MB, MORE_MB = 150, 25


def hostile(number: int) -> bytes:
    """An info as large as a device's own, of which everything is made up."""
    return encode(
        DeviceInfo(
            boot=f"boot{number}",
            sequence=number,
            uptime_s=1e9,
            workers=1024,
            operators=[f"operator-{number}-{one}" for one in range(40)],
            fingerprints={f"gray/uint8/{number}-{one}": "f" * 16 for one in range(60)},
            host="ghost\x1b[2J",
        )
    )


def haunt(client: Probe, first: int) -> None:
    """As many more devices come online, and stay retained."""
    for number in range(first, first + GHOSTS):
        topic = f"fog/v1/devices/ghost{number}"
        client.publish(f"{topic}/info", hostile(number), qos=0, retain=True)
        client.publish(f"{topic}/status", b"online", qos=0, retain=True)
    client.publish("fog/v1/devices/last/status", b"offline", qos=1)


def memory_mb(program: Program) -> float:
    return psutil.Process(program.process.pid).memory_info().rss / 1e6


def exact_reply(fog: Fog, client: Probe, image: Path) -> None:
    client.publish("fog/v1/submit/edges/me", image.read_bytes())
    out = fog.folder / "reply.png"
    out.write_bytes(client.message("fog/v1/replies/me/image", within=60).payload)
    assert same(read(out), edges_of(image))


def test_eleven_thousand_made_up_devices_cost_a_bounded_memory_and_no_job(
    broker: object, tmp_path: Path
) -> None:
    del broker
    with private_fog(tmp_path, GATEWAY__DELIVER="reply") as fog:
        image = fog.save("in.png", photo(200, 300))
        fog.fleet("eya")
        fog.examined()
        gateway = fog.serve()
        with fog.probe("fog/v1/replies/me/image", client_id="me") as me:
            exact_reply(fog, me, image)
            grew = [memory_mb(gateway)]
            for first in (0, GHOSTS):
                haunt(me, first)
                exact_reply(fog, me, image)
                grew.append(memory_mb(gateway))
        began = time.monotonic()
        done = fog.command("devices", "--json")
        took = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout), "it tells of those that the broker told it of by then"
        assert took < 40
        assert gateway.running
        assert "Traceback" not in gateway.said
        assert grew[1] - grew[0] < FIRST_MB, grew
        assert grew[2] - grew[1] < MORE_MB, grew
        assert gateway.said.count("ghost") < 1500, "the log is bounded, too"
