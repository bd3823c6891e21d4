"""Devices of little memory: what they get, and what is said where nobody has room."""

from __future__ import annotations

import math

from fogmqtt.core.scheduling.actions import ReportStarved, SendTile, SplitTile
from fogmqtt.core.scheduling.events import DeviceJoined
from tests.scheduling import Bench, only, sent, sizes


def small(bench: Bench, device: str, room: int) -> list:
    return bench.feed(DeviceJoined(device, "1", 1, max_tile_pixels=room))


def test_a_tile_too_large_for_the_only_idle_device_is_split_again() -> None:
    bench = Bench(probe_pixels=10_000)
    small(bench, "zero", 1000)
    actions = bench.submit((8000,), halvings=(4,))
    pixels = sizes((8000,), actions)
    assert [pixels[one.tile] for one in sent(actions)] == [1000] * 3


def test_a_large_device_gets_whole_tiles_beside_a_small_one() -> None:
    bench = Bench(probe_pixels=10_000)
    small(bench, "zero", 1000)
    bench.join("laptop")
    actions = bench.submit((8000,) * 4, halvings=(3,) * 4)
    pixels = sizes((8000,) * 4, actions)
    assert {pixels[one.tile] for one in sent(actions) if one.device == "laptop"} == {8000}
    assert {pixels[one.tile] for one in sent(actions) if one.device == "zero"} == {1000}


def test_without_room_for_the_smallest_part_a_job_starves_with_figures() -> None:
    bench = Bench(starve_s=1)
    small(bench, "zero", 1000)
    assert sent(bench.submit((8000,), halvings=(2,))) == []
    (report,) = (one for one in bench.tick(at=2) if isinstance(one, ReportStarved))
    assert "2,000 pixels with halo" in report.reason
    assert "zero takes 1,000 (max_tile_pixels)" in report.reason
    assert [one.device for one in sent(bench.join("laptop"))] == ["laptop"]


def test_who_has_room_and_is_draining_is_told_beside_who_has_none() -> None:
    bench = Bench(starve_s=1)
    small(bench, "zero", 1000)
    bench.join("laptop")
    bench.drain("laptop")
    bench.submit((8000,))
    (report,) = (one for one in bench.tick(at=2) if isinstance(one, ReportStarved))
    assert report.reason == "every able device is too small (zero) or draining (laptop)"


def test_a_tile_that_failed_on_the_large_device_is_split_for_the_small_one() -> None:
    bench = Bench(probe_pixels=10_000, retry_s=0)
    bench.join("laptop")
    order = only(bench.submit((2000,), halvings=(1,)))
    bench.accept(order)
    bench.drain("laptop")
    bench.fail(order)
    actions = small(bench, "zero", 1000)
    assert [one for one in actions if isinstance(one, SplitTile)]
    assert {(one.device, one.tile) for one in sent(actions)} == {("zero", 1), ("zero", 2)}


def test_halves_inherit_the_mishaps_of_their_tile() -> None:
    bench = Bench(probe_pixels=10_000, max_losses=3, alone_after=0)
    for life in ("1", "2"):
        bench.join("laptop", boot=life)
        if life == "1":
            order = only(bench.submit((2000,), halvings=(1,)))
        bench.accept(order)
        bench.lose("laptop")
        order = SendTile("job", 0, 2, "laptop", 0)
    small(bench, "zero", 1000)
    first = SendTile("job", 1, 1, "zero", 0)
    bench.accept(first)
    actions = bench.lose("zero")
    assert "3 devices that died" in actions[0].reason


def test_a_hedge_goes_to_who_has_room() -> None:
    bench = Bench(probe_pixels=10_000)
    bench.measured("big", seconds=1)
    bench.measured("other", seconds=1)
    small(bench, "zero", 500)
    order = only(bench.submit((1000,)))
    bench.accept(order)
    copies = sent(bench.tick(at=bench.now + 4))
    assert [one.device for one in copies] == [({"big", "other"} - {order.device}).pop()]


def test_nonsense_means_no_limit() -> None:
    bench = Bench()
    for device, room in (("nan", math.nan), ("none", 0), ("less", -5.0)):
        bench.feed(DeviceJoined(device, "1", 1, max_tile_pixels=room))
    assert {one.device for one in sent(bench.submit(9))} == {"nan", "none", "less"}
