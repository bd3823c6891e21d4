"""A device of little memory beside another: it gets parts of tiles, and never too large a one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import Decoder, TileTask
from tests.processes import Fog, Program, edges_of, photo, read, same

pytestmark = pytest.mark.broker

ROOM = 40_000


@pytest.fixture(scope="module", autouse=True)
def laptop(fog: Fog) -> Iterator[Program]:
    """Two of their own: one says how little it takes."""
    slow = ("--emulate-speed", "2e6")
    small = fog.device("zero", "--max-tile-pixels", str(ROOM), *slow, WIRE__PREFIX="small/v1")
    large = fog.device("laptop", *slow, WIRE__PREFIX="small/v1")
    small.says("zero is online")
    large.says("laptop is online")
    yield large
    small.stop()
    large.stop()


def test_a_small_device_does_its_part_in_tiles_that_fit(fog: Fog) -> None:
    picture = fog.save("large.png", photo(1500, 2000))
    with fog.probe("small/v1/devices/zero/tiles", client_id="looker") as looker:
        ran = fog.run(
            picture,
            "-o",
            fog.folder / "out.png",
            WIRE__PREFIX="small/v1",
        )
        given = [one for one in looker.inbox.all() if isinstance(one, Received)]
    assert same(read(fog.folder / "out.png"), edges_of(picture))
    assert ran.report is not None
    assert ran.report["devices"]["zero"]["tiles"] > 0
    tasks = [Decoder(TileTask).decode(one.payload) for one in given]
    assert tasks
    assert max(task.shape[0] * task.shape[1] for task in tasks) <= ROOM


def test_where_nobody_has_room_the_job_says_so_in_figures(fog: Fog, laptop: Program) -> None:
    laptop.stop()
    picture = fog.save("whole.png", photo(600, 800))
    ran = fog.run(
        picture,
        "-o",
        fog.folder / "whole-out.png",
        "--tiles",
        "grid 1x1",
        "--timeout",
        "3",
        code=1,
        WIRE__PREFIX="small/v1",
        GATEWAY__LOCAL_AFTER="1",
    )
    assert "zero takes 40,000 (max_tile_pixels)" in ran.err


def test_devices_shows_it(fog: Fog) -> None:
    listed = json.loads(fog.command("devices", "--json", WIRE__PREFIX="small/v1").stdout)
    assert listed["zero"]["max_tile_pixels"] == ROOM
    table = fog.command("devices", WIRE__PREFIX="small/v1").stdout
    assert f"zero takes tiles of at most {ROOM:,} pixels" in table
