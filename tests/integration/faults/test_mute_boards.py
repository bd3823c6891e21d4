"""Boards that announce what they can do and never answer cost the others next to nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.processes import Fog, edges_of, photo, read, same

MUTE = 40
GOOD = ("eya", "manar")


@contextmanager
def mute_boards(fog: Fog, count: int) -> Iterator[None]:
    """Announce boards with the abilities of `eya` that hear no tile."""
    with fog.probe("fog/v1/devices/eya/info", client_id="announces") as client:
        info = json.loads(client.message("fog/v1/devices/eya/info").payload)
        for number in range(count):
            info |= {"boot": f"mute-{number}", "machine": ""}
            topic = f"fog/v1/devices/a-mute-{number}"
            client.publish(f"{topic}/info", json.dumps(info).encode(), retain=True)
            client.publish(f"{topic}/status", b"online", retain=True)
        yield


def test_forty_mute_boards_beside_two_good_ones_cost_a_job_tenths_of_a_second(
    lone_fog: Fog,
) -> None:
    lone_fog.fleet(*GOOD, speed=2_000_000)
    lone_fog.examined()
    image = lone_fog.save("in.png", photo(1000, 1400))
    job = (image, "-o", "out.png", "--tiles", "size 128x128")
    alone = min(lone_fog.run(*job).report["seconds"] for _ in range(2))
    with mute_boards(lone_fog, MUTE):
        first, second = lone_fog.run(*job), lone_fog.run(*job)
    assert set(first.report["devices"]) == set(GOOD)
    beside = min(first.report["seconds"], second.report["seconds"])
    assert beside < alone + 1.5, f"{alone} s without them"
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))
