"""Devices and gateways on slow links: tiles, codecs and clocks follow the rate of the link."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from tests.processes import Fog, edges_of, photo, private_fog, read, same
from tests.relay import slow_relay

pytestmark = pytest.mark.broker

#: One megabit per second.
SLOW = 125_000.0
#: Pixels per second of each device.
SPEED = "500000"


def start(fog: Fog, name: str, url: str = "") -> None:
    more = {"BROKER__URL": url} if url else {}
    fog.device(name, "--emulate-speed", SPEED, **more).says(f"{name} is online")


def test_a_device_on_a_slow_link_delays_no_job(broker: object, tmp_path: Path) -> None:
    del broker
    with private_fog(tmp_path) as fog, slow_relay(fog.broker.port, SLOW) as link:
        for name in ("eya", "manar"):
            start(fog, name)
        path = fog.save("in.png", photo(1500, 2000))
        alone = fog.run(path, "-o", "out.png").report
        start(fog, "slow", link.url)
        fog.run(path, "-o", "out.png")  # nothing is known of the slow device
        ran = fog.run(path, "-o", "out.png").report
        assert same(read(tmp_path / "out.png"), edges_of(path))
        assert ran["seconds"] < 1.5 * alone["seconds"] + 1.0


def test_a_gateway_on_a_slow_link_sends_each_tile_once(broker: object, tmp_path: Path) -> None:
    del broker
    with private_fog(tmp_path) as fog, slow_relay(fog.broker.port, SLOW) as link:
        for name in ("eya", "manar", "oumayma"):
            start(fog, name)
        path = fog.save("in.png", photo(600, 1000))
        arguments = path, "-o", "out.png", "--pipeline", "median ksize=5"
        ran = fog.run(*arguments, BROKER__URL=link.url)
        assert same(read(tmp_path / "out.png"), cv2.medianBlur(read(path), 5))
        assert ran.report["wire_bytes"]["out"] < 1.2 * read(path).nbytes
        assert "did not accept" not in ran.err
        assert "quarantine" not in ran.err
