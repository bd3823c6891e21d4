"""Any device may be killed or frozen in mid-job, and the broker restarted: the job is exact."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import Accepted, Decoder, Failure, FromDevice, Rejected, Result
from tests.fog import Probe
from tests.misbehaving import install
from tests.processes import DEVICES, Fog, Program, edges_of, gray_of, photo, read, same

pytestmark = [pytest.mark.broker, pytest.mark.chaos]

ANSWERS: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)
RESULTS = "fog/v1/gateways/+/results/+"
#: Pixels per second of each device: a job of this photo takes three of them some 4 seconds.
SPEED = 60_000
SIZE = (720, 1000)
TILES = "size 100x90"


def _results(client: Probe, count: int) -> None:
    """Wait until so many tiles came back, so that the job is in its middle."""
    while count:
        message = client.inbox.take(Received, within=30.0)
        count -= isinstance(ANSWERS.decode(message.payload), Result)


def _exact_after(fog: Fog, harm: Callable[[tuple[Program, ...]], None], **settings: str) -> Program:
    """Start a job, do harm in its middle; the job must end with OpenCV's pixels."""
    path = fog.save("in.png", photo(*SIZE))
    devices = fog.fleet(speed=SPEED)
    out = fog.folder / "out.png"
    with fog.probe(RESULTS) as watcher:
        run = fog.start_run(path, "-o", out, "--tiles", TILES, **settings)
        _results(watcher, 6)
    harm(devices)
    assert run.ended() == 0, run.said
    assert same(read(out), edges_of(path)), run.said
    return run


def test_a_killed_device_costs_nothing(fog: Fog) -> None:
    _exact_after(fog, lambda devices: devices[0].kill())


def test_two_of_three_killed_devices_cost_nothing(fog: Fog) -> None:
    def harm(devices: tuple[Program, ...]) -> None:
        devices[0].kill()
        devices[1].kill()

    _exact_after(fog, harm)


def test_a_frozen_device_is_given_up(fog: Fog) -> None:
    run = _exact_after(fog, lambda devices: devices[2].signal(signal.SIGSTOP))
    assert "eya" not in [line.split()[1] for line in run.said.splitlines() if "quarantine" in line]


def test_a_device_that_thaws_in_time_goes_on(fog: Fog) -> None:
    def harm(devices: tuple[Program, ...]) -> None:
        devices[1].signal(signal.SIGSTOP)
        fog.broker.freeze()
        fog.broker.thaw()
        devices[1].signal(signal.SIGCONT)

    run = _exact_after(fog, harm)
    assert "quarantine" not in run.said


def test_a_killed_broker_blames_no_device(fog: Fog) -> None:
    def harm(devices: tuple[Program, ...]) -> None:
        fog.broker.kill()
        fog.broker.start()

    run = _exact_after(fog, harm)
    assert "quarantine" not in run.said


def test_a_device_that_restarts_in_mid_job_takes_part_again(fog: Fog) -> None:
    def harm(devices: tuple[Program, ...]) -> None:
        devices[0].kill()
        fog.device("eya")

    _exact_after(fog, harm)


def test_everything_at_once(fog: Fog) -> None:
    def harm(devices: tuple[Program, ...]) -> None:
        devices[0].kill()
        devices[1].signal(signal.SIGSTOP)
        fog.broker.kill()
        fog.broker.start()

    _exact_after(fog, harm)


def test_with_no_device_left_the_gateways_own_cores_do_the_rest(fog: Fog) -> None:
    def harm(devices: tuple[Program, ...]) -> None:
        for device in devices:
            device.kill()

    run = _exact_after(fog, harm, GATEWAY__LOCAL="auto", GATEWAY__LOCAL_AFTER="0.5")
    assert "  local " in run.said  # among those who did tiles


@pytest.mark.parametrize("qos", ["0", "2"])
def test_any_qos_survives_a_killed_device_and_broker(fog: Fog, qos: str) -> None:
    fog.settings["WIRE__QOS"] = qos

    def harm(devices: tuple[Program, ...]) -> None:
        devices[2].kill()
        fog.broker.kill()
        fog.broker.start()

    _exact_after(fog, harm)


def test_a_serving_gateway_outlives_its_broker(fog: Fog, tmp_path: Path) -> None:
    path = fog.save("in.png", photo(*SIZE))
    fog.fleet(*DEVICES[:2])
    gateway = fog.serve()
    fog.broker.kill()
    fog.broker.start()
    gateway.says("trying again")
    with fog.probe("fog/v1/replies/me/image", "fog/v1/gateways/mariem/status") as client:
        while client.message("fog/v1/gateways/mariem/status", within=30.0).payload != b"online":
            pass
        client.publish("fog/v1/submit/edges/me", path.read_bytes(), qos=1)
        reply = client.message("fog/v1/replies/me/image", within=60.0)
    got = cv2.imdecode(np.frombuffer(reply.payload, np.uint8), cv2.IMREAD_UNCHANGED)
    assert same(got, cv2.Canny(gray_of(path), 50, 150))


def test_a_device_that_comes_and_dies_again_leaves_the_rest_to_the_gateway(
    fog: Fog, tmp_path: Path
) -> None:
    """The gateway's own cores stepped in before it came, and work beside it until the end."""
    path = fog.save("in.png", photo(*SIZE))
    fog.path = install(tmp_path)
    # However fast this machine is: its own cores are held up until the device is dead.
    run = fog.start_run(
        *(path, "-o", fog.folder / "out.png", "--tiles", TILES),
        *("--pipeline", "misbehave how=wait"),
        GATEWAY__LOCAL="auto",
        GATEWAY__LOCAL_AFTER="0.3",
    )
    run.says("this gateway does the rest itself")
    with fog.probe(RESULTS) as watcher:
        (device,) = fog.fleet("eya", speed=SPEED)
        (fog.folder / f"free-{device.process.pid}").touch()
        _results(watcher, 3)
    device.kill()
    (fog.folder / "open").touch()
    assert run.ended() == 0, run.said
    assert "  local " in run.said  # among those who did tiles
    assert same(read(fog.folder / "out.png"), 255 - read(path))


def test_a_reply_that_found_no_broker_survives_the_gateway_too(fog: Fog) -> None:
    path = fog.save("in.png", photo(900, 1400))
    config = fog.folder / "slow.yaml"
    config.write_text("pipelines: {slow: gray | denoise}\n")
    fog.settings["GATEWAY__LOCAL"] = "always"
    gateway = fog.serve_with(config)
    gateway.says("mariem is online")
    with fog.probe() as client:
        client.publish("fog/v1/submit/slow/me", path.read_bytes(), qos=1)
        gateway.says("accepted as")
    fog.broker.kill()
    gateway.says("done in")
    gateway.kill()
    fog.broker.start()
    with fog.probe("fog/v1/replies/me/image") as client:
        fog.serve_with(config)
        reply = client.message("fog/v1/replies/me/image", within=60.0)
    got = cv2.imdecode(np.frombuffer(reply.payload, np.uint8), cv2.IMREAD_UNCHANGED)
    assert same(got, cv2.fastNlMeansDenoising(gray_of(path)))
