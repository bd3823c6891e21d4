"""`fog-gateway explain` and `fog-gateway verify`: what would be done, and whether it is right."""

from __future__ import annotations

import re

import pytest

from fogmqtt.transport.base import Received
from tests.processes import Fog, photo

pytestmark = pytest.mark.broker

PIPELINE = "gray | gaussian sigma=1.4 | canny low=50 high=150"


def test_explain_tells_stages_halos_bytes_and_the_time_on_the_present_fleet(fog: Fog) -> None:
    picture = fog.save("in.png", photo())
    done = fog.command("explain", str(picture), "--pipeline", PIPELINE)
    assert done.returncode == 0, done.stderr
    assert "on in.png: 640x480 colour uint8" in done.stdout
    assert "on the devices: gaussian sigma=1.4 | canny" in done.stdout
    assert "the gateway does gray while it cuts" in done.stdout
    assert re.search(r"tile\(s\) of \d+x\d+, halo 4, align 1", done.stdout)
    assert re.search(r"bytes per pixel: 1\.\d\d out, at most 0\.26 back", done.stdout)
    assert re.search(
        r"predicted with 3 device\(s\), 3 worker\(s\): eya, manar, oumayma: [\d.]+ s", done.stdout
    )
    assert re.search(r"on this machine alone: [\d.]+ s; the fleet ", done.stdout)


def test_explain_leaves_nothing_at_the_broker(lone_fog: Fog) -> None:
    lone_fog.fleet("eya")
    picture = lone_fog.save("in.png", photo())
    before = retained(lone_fog)
    done = lone_fog.command("explain", str(picture), "--pipeline", PIPELINE)
    assert "predicted with 1 device(s)" in done.stdout
    assert retained(lone_fog) == before
    assert before == {"fog/v1/devices/eya/info", "fog/v1/devices/eya/status"}


def retained(fog: Fog) -> set[str]:
    """The topics on which the broker keeps a message."""
    end, topics = "tests/end", set[str]()
    with fog.probe("#") as client:
        client.publish(end, b"")  # it arrives after all that is retained
        while (message := client.inbox.take(Received)).topic != end:
            topics |= {message.topic} if message.retained else set()
    return topics


def test_explain_says_where_each_stage_runs(fog: Fog) -> None:
    picture = fog.save("in.png", photo())
    done = fog.command("explain", str(picture), "--pipeline", "gray | median | otsu | flip")
    lines = [line for line in done.stdout.splitlines() if line.startswith("stage")]
    assert lines == [
        "stage 1  on the devices: median",
        "stage 2  on the devices: otsu",
        "stage 3  on the gateway: flip",
    ]


def test_explain_without_devices_still_explains(fog: Fog) -> None:
    picture = fog.save("in.png", photo())
    done = fog.command("explain", str(picture), "--pipeline", PIPELINE, WIRE__PREFIX="nobody/here")
    assert done.returncode == 0, done.stderr
    assert "no prediction: no device is online" in done.stdout


def test_explain_without_a_broker_still_explains(fog: Fog) -> None:
    picture = fog.save("in.png", photo())
    done = fog.command(
        "explain", str(picture), "--pipeline", PIPELINE, BROKER__URL="mqtt://127.0.0.1:9"
    )
    assert done.returncode == 0, done.stderr
    assert "no prediction: nothing listens at mqtt://127.0.0.1:9" in done.stdout


def test_explain_points_at_the_word_that_is_wrong(fog: Fog) -> None:
    picture = fog.save("in.png", photo())
    done = fog.command("explain", str(picture), "--pipeline", "gray | cany low=50")
    assert done.returncode == 2
    assert "column 8: no operator is called 'cany'; did you mean 'canny'?" in done.stderr


def test_verify_compares_with_one_machine_and_leaves_no_file(fog: Fog) -> None:
    picture = fog.save("in.png", photo())
    before = set(fog.folder.glob("*.png"))
    done = fog.command("verify", str(picture), "--pipeline", PIPELINE, "--tiles", "size 70x50")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 of 307200 pixels differ from one machine\n"
    assert set(fog.folder.glob("*.png")) == before
