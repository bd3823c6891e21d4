"""A gateway that is killed and does not come back: another one finishes what it had accepted."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from fogmqtt.transport.base import Received
from tests.fog import Probe
from tests.processes import Fog, edges_of, photo, read, same, until

JOBS = 4
SUBMIT = "fog/v1/submit/edges"
TILES = "size 128x128"
#: Of an image of 600 x 800 pixels.
ALL_TILES = 35


def submit(me: Probe, image: bytes) -> None:
    """Submit the images, and wait until all are accepted and the first has some tiles done."""
    for number in range(JOBS):
        me.publish(f"{SUBMIT}/r{number}", image)
    accepted: set[str] = set()
    while len(accepted) < JOBS:
        message = me.inbox.take(Received, within=60)
        if message.topic.endswith("/status"):
            accepted.add(message.topic)
    while True:
        message = me.inbox.take(Received, within=60)
        if message.topic.endswith("/status") and json.loads(message.payload).get("done", 0) > 2:
            return


def outcomes(me: Probe) -> tuple[Counter[str], dict[str, bytes]]:
    """How often each reply was told its end, and the images, of all that has arrived."""
    ends: Counter[str] = Counter()
    images: dict[str, bytes] = {}
    for message in me.inbox.all():
        if not isinstance(message, Received):
            continue
        reply, leaf = message.topic.split("/")[-2:]
        if leaf == "image":
            images[reply] = bytes(message.payload)
        elif json.loads(message.payload)["state"] in ("done", "failed"):
            ends[reply] += 1
    return ends, images


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_jobs_of_a_gateway_that_never_returns_end_once_under_another_id(
    lone_fog: Fog, protocol: str
) -> None:
    lone_fog.settings |= {"BROKER__PROTOCOL": protocol, "GATEWAY__DELIVER": "reply"}
    lone_fog.fleet("eya", "manar", speed=60_000)
    gateway = lone_fog.serve(TILES=TILES, LIMITS__MAX_JOBS="1")
    image = lone_fog.save("in.png", photo(600, 800))
    with lone_fog.probe("fog/v1/replies/+/+", client_id="me") as me:
        submit(me, image.read_bytes())
        refused = lone_fog.command("adopt", "spool", GATEWAY__ID="oumayma")
        assert refused.returncode == 2
        assert "lives and does its jobs itself: mariem (process " in refused.stderr
        gateway.kill()
        adopted = lone_fog.command("adopt", "spool", GATEWAY__ID="oumayma", TILES=TILES)
        assert adopted.returncode == 0, adopted.stderr
        found = re.search(r"(\d) job\(s\) done, 0 failed", adopted.stdout)
        assert found is not None, adopted.stdout
        assert int(found[1]) >= JOBS - 1, "one may have ended before"
        until(lambda: len(outcomes(me)[1]) == JOBS, "all images")
        ends, images = outcomes(me)
    assert ends == Counter({f"r{number}": 1 for number in range(JOBS)})
    for reply, data in images.items():
        path = lone_fog.folder / f"{reply}.png"
        path.write_bytes(data)
        assert same(read(path), edges_of(image))
    again = lone_fog.serve()
    assert "was accepted before" not in again.said, "nothing is left"


def test_finished_tiles_of_the_dead_gateway_are_not_done_again(lone_fog: Fog) -> None:
    lone_fog.settings |= {"GATEWAY__DELIVER": "reply"}
    lone_fog.fleet("eya", speed=200_000)
    gateway = lone_fog.serve(TILES=TILES)
    image = lone_fog.save("in.png", photo(600, 800))
    tiles = "fog/v1/devices/eya/tiles"
    with lone_fog.probe("fog/v1/jobs/+/status", tiles, client_id="me") as me:
        me.publish(f"{SUBMIT}/r", image.read_bytes())
        while True:
            message = me.inbox.take(Received, within=60)
            status = json.loads(message.payload) if message.topic.endswith("/status") else {}
            if status.get("done", 0) >= 10:
                break
        gateway.kill()
        sent_before = sum(one.topic == tiles for one in me.inbox.all() if isinstance(one, Received))
        adopted = lone_fog.command("adopt", "spool", GATEWAY__ID="oumayma")
        sent = sum(one.topic == tiles for one in me.inbox.all() if isinstance(one, Received))
    assert adopted.returncode == 0, adopted.stderr
    assert "was accepted before and is not delivered: doing it now" in adopted.stderr
    assert sent - sent_before < ALL_TILES - 5, "ten were done"


def test_a_folder_that_is_no_spool_is_refused_and_left_alone(lone_fog: Fog) -> None:
    (lone_fog.folder / "photos").mkdir()
    refused = lone_fog.command("adopt", "photos")
    assert refused.returncode == 2
    assert "is not the spool of a gateway" in refused.stderr
    assert list((lone_fog.folder / "photos").iterdir()) == []
