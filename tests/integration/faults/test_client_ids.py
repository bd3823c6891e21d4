"""A client id carries prefix and role, so that nobody pushes anybody else off the broker."""

from __future__ import annotations

import re

import pytest

from fogmqtt.transport.link import Protocol
from tests.processes import Fog, edges_of, photo, read, same
from tests.strict import short_ids

BOTH: tuple[Protocol, ...] = (5, "3.1.1")


def client_ids(fog: Fog) -> set[str]:
    """Who has connected so far, as Mosquitto logs it."""
    found = re.findall(r"New client connected from \S+ as (\S+) ", fog.broker.log)
    return {name for name in found if not name.startswith("fog-probe-")}


@pytest.mark.parametrize("protocol", BOTH)
def test_two_fogs_at_one_broker_and_a_device_named_like_its_gateway_leave_each_other_alone(
    lone_fog: Fog, protocol: Protocol
) -> None:
    lone_fog.settings |= {"BROKER__PROTOCOL": str(protocol)}
    programs = [
        lone_fog.serve(),
        lone_fog.device("mariem"),
        lone_fog.serve(WIRE__PREFIX="shop", GATEWAY__INBOX="i", GATEWAY__SPOOL="s"),
        lone_fog.device("mariem", WIRE__PREFIX="shop"),
    ]
    for program in programs:
        program.says("mariem is online")
    image = lone_fog.save("in.png", photo(200, 300))
    for prefix in ("fog/v1", "shop"):
        ran = lone_fog.run(image, "-o", "out.png", WIRE__PREFIX=prefix)
        assert same(read(lone_fog.folder / "out.png"), edges_of(image))
        assert set(ran.report["devices"]) == {"mariem"}
    listed = lone_fog.command("devices")
    explained = lone_fog.command("explain", str(image), "--pipeline", "gray")
    assert listed.returncode == explained.returncode == 0
    roles = {re.sub(r"-(run|look)-[0-9a-f]{4}$", "", name) for name in client_ids(lone_fog)}
    assert roles == {
        "fog-v1-gateway-mariem",
        "fog-v1-device-mariem",
        "shop-gateway-mariem",
        "shop-device-mariem",
    }
    for program in programs:
        assert "lost the broker" not in program.said


@pytest.mark.parametrize("protocol", BOTH)
def test_a_broker_that_takes_23_letters_and_digits_only_gets_such_ids(
    lone_fog: Fog, protocol: Protocol
) -> None:
    lone_fog.settings |= {"BROKER__PROTOCOL": str(protocol)}
    image = lone_fog.save("in.png", photo(200, 300))
    with short_ids(lone_fog.broker.port) as wire:
        lone_fog.settings |= {"BROKER__URL": wire.url}
        (eya,) = lone_fog.fleet("eya")
        gateway = lone_fog.serve()
        lone_fog.run(image, "-o", "out.png")
        assert len(set(wire.passed)) == len(wire.passed) == 3
        assert {"fog-v1-device-eya", "fog-v1-gateway-mariem"} < set(wire.refused)
        assert len(wire.refused) == 3, "each tries its long id once"
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))
    assert eya.said.count("refuses the client id fog-v1-device-eya") == 1
    assert gateway.said.count("refuses the client id fog-v1-gateway-mariem") == 1
