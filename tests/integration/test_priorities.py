"""Several jobs on one fleet, of one gateway and of two: nobody starves, and all is exact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import Accepted, Decoder, FromDevice, Rejected, Result
from tests.fog import Probe, wait_for
from tests.processes import Fog, edges_of, photo, private_fog, read, same

pytestmark = [pytest.mark.broker, pytest.mark.proof]

#: Pixels per second of each of the two devices.
SPEED = 500_000
#: A tile takes a fifth of a second at most: a long job is one of many tiles.
SMALL_TILES = {"WIRE__MAX_MESSAGE_BYTES": "110000"}
SERVING = {
    # So whoever needed the scan's place would wait for its end.
    "LIMITS__MAX_JOBS": "1",
    "GATEWAY__DELIVER": "reply",
    "PIPELINES__SCAN": "gray | canny low=50 high=150",
    "PIPELINES__CAMERA": "gray | canny low=50 high=150",
    "PRIORITIES__SCAN": "-1",
    "PRIORITIES__CAMERA": "2",
}
RESULTS = "fog/v1/gateways/+/results/+"


@pytest.fixture(scope="module")
def fog(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """Two devices that know what they can do."""
    del broker
    with private_fog(tmp_path_factory.mktemp("fog"), **SMALL_TILES) as made:
        made.fleet("eya", "manar", speed=SPEED)
        made.examined()
        yield made


def answered(client: Probe) -> tuple[str, Image]:
    """The next image that is answered, and under which name."""
    heard = client.inbox.take_where(
        lambda event: isinstance(event, Received) and event.topic.endswith("/image"),
        Received,
        within=60,
    )
    image = cv2.imdecode(np.frombuffer(heard.payload, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return heard.topic.split("/")[-2], image


def begun(client: Probe, reply: str) -> bool:
    """Whether some tile of its job is done, by the words that came so far."""
    topic = f"fog/v1/replies/{reply}/status"
    said = [one for one in client.inbox.all() if isinstance(one, Received) and one.topic == topic]
    return any(json.loads(one.payload).get("done", 0) > 0 for one in said)


def test_a_scan_neither_holds_up_the_pictures_of_a_camera_nor_takes_their_place(fog: Fog) -> None:
    scan = fog.save("scan.png", photo(2000, 3000))
    frames = {f"frame{number}": photo(150, 200, number) for number in range(4)}
    paths = {name: fog.save(f"{name}.png", frame) for name, frame in frames.items()}
    gateway = fog.serve(**SERVING)
    with (
        fog.probe("fog/v1/replies/#", client_id="me") as me,
        fog.probe(RESULTS, client_id="hearing") as hearing,
    ):
        me.publish("fog/v1/submit/scan/scan", scan.read_bytes())
        wait_for(lambda: begun(me, "scan"), within=60, what="the scan's first tile")
        most = 0
        for name, path in paths.items():
            before = len(tiles_done(hearing))
            me.publish(f"fog/v1/submit/camera/{name}", path.read_bytes())
            who, edges = answered(me)
            most = max(most, len(tiles_done(hearing)) - before)
            assert who == name
            assert same(edges, edges_of(path))
        who, edges = answered(me)
        everything = len(tiles_done(hearing))
    assert who == "scan"
    assert same(edges, edges_of(scan))
    # How long a frame takes, told in tiles: seconds depend on what else the machine does.
    assert most < everything / 3, (most, everything)
    assert gateway.stop() == 0


def tiles_done(client: Probe) -> list[tuple[str, int]]:
    """Whose tiles were done, `plain` or `urgent`, and their pixels; in their order."""
    decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Rejected)
    heard = [one for one in client.inbox.all() if isinstance(one, Received)]
    said = [(one.topic.split("/")[3].split("-")[0], decoder.decode(one.payload)) for one in heard]
    return [(name, one.shape[0] * one.shape[1]) for name, one in said if isinstance(one, Result)]


def test_two_gateways_share_the_devices_and_the_less_urgent_goes_on(
    fog: Fog, tmp_path: Path
) -> None:
    pictures = {
        "plain": fog.save("plain.png", photo(2000, 3000, 1)),
        "urgent": fog.save("urgent.png", photo(1000, 1300, 2)),
    }

    def start(name: str, priority: int) -> None:
        more = ("-o", tmp_path / f"{name}.png", "--priority", str(priority))
        runs.append(fog.start_run(pictures[name], *more, GATEWAY__ID=name))

    runs = []
    with fog.probe(RESULTS, client_id="hearing") as hearing:
        start("plain", 0)
        wait_for(lambda: tiles_done(hearing), within=60, what="a first tile")
        start("urgent", 1)
        for run in runs:
            assert run.ended() == 0, run.said
        done = tiles_done(hearing)
    for name, picture in pictures.items():
        assert same(read(tmp_path / f"{name}.png"), edges_of(picture))
    at = [number for number, (name, _) in enumerate(done) if name == "urgent"]
    together = done[at[0] : at[-1] + 1]
    urgent, plain = (
        sum(pixels for name, pixels in together if name == wanted) for wanted in ("urgent", "plain")
    )
    assert 0 < plain < urgent * 0.7, (plain, urgent)
    assert done[-1][0] == "plain", "it had more to do than the other, and was not held up for good"
