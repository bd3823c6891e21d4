"""Halves of tiles, and which of them a device gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid, Tile, cut
from fogmqtt.core.scheduling.actions import SendTile, SplitTile
from fogmqtt.core.tiling import LEAST_PIXELS, halve, parts
from tests.scheduling import Bench, sizes


@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    halo=st.integers(0, 20),
    align=st.sampled_from((1, 64)),
)
def test_halves_cover_the_tile_once_and_are_cut_as_it_was(
    height: int, width: int, halo: int, align: int
) -> None:
    (tile,) = cut((height, width), Grid(1, 1), halo=halo, align=align)
    halves = halve(tile, halo=halo, align=align, least_pixels=1)
    if halves is None:
        assert max(height, width) <= 2 * align
        return
    first, second = halves
    assert first.core.pixels + second.core.pixels == tile.core.pixels
    assert (second.core.top, second.core.left) in {
        (first.core.bottom, first.core.left),
        (first.core.top, first.core.right),
    }
    for half in halves:
        assert half.outer == half.core.grown(halo, (height, width), align)
        assert half.core.top % align == half.core.left % align == 0


def defined_parts(tile: Tile, halo: int, align: int) -> tuple[int, ...]:
    """The definition of `parts`, which halves every part anew."""
    halves = halve(tile, halo=halo, align=align)
    if halves is None:
        return ()
    below = zip(*(defined_parts(one, halo, align) for one in halves), strict=False)
    return max(one.outer.pixels for one in halves), *map(max, below)


@given(
    height=st.integers(3, 1200),
    width=st.integers(3, 1200),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    halo=st.integers(0, 20),
    align=st.sampled_from((1, 2, 64)),
)
def test_tiles_of_one_shape_have_the_parts_that_each_has_by_itself(
    height: int, width: int, rows: int, columns: int, halo: int, align: int
) -> None:
    tiles = cut((height, width), Grid(rows, columns), halo=halo, align=align)
    expected = tuple(defined_parts(tile, halo, align) for tile in tiles)
    assert parts(tiles, halo=halo, align=align) == expected


def test_nothing_is_halved_to_less_than_is_worth_a_message() -> None:
    (tile,) = cut((128, 256), Grid(1, 1))
    assert tile.core.pixels == 2 * LEAST_PIXELS
    assert parts([tile], halo=0, align=1) == ((LEAST_PIXELS,),)
    assert halve(tile, halo=20, align=1) is None


def test_rows_stay_in_one_piece_where_nothing_is_around_a_core() -> None:
    (tile,) = cut((100, 6000), Grid(1, 1))
    first, _ = halve(tile, halo=0, align=1) or pytest.fail("it can be halved")
    assert (first.core.height, first.core.width) == (50, 6000)
    (flat,) = cut((100, 6000), Grid(1, 1), halo=2)
    first, _ = halve(flat, halo=2, align=1) or pytest.fail("it can be halved")
    assert (first.core.height, first.core.width) == (100, 3000)


def test_a_slow_device_gets_a_part_of_a_tile_that_it_can_do_in_time() -> None:
    bench = Bench()
    bench.measured("slow", seconds=8)
    bench.measured("fast", seconds=1)
    actions = bench.submit((8000, 8000), halvings=(5, 5))
    pixels = sizes((8000, 8000), actions)
    orders = [one for one in actions if isinstance(one, SendTile)]
    assert max(pixels[one.tile] for one in orders if one.device == "slow") <= 1000
    assert max(pixels[one.tile] for one in orders if one.device == "fast") >= 4000


def test_a_device_that_nobody_knows_is_measured_with_a_small_tile() -> None:
    bench = Bench(probe_pixels=1000)
    bench.join("new")
    actions = bench.submit((8000,), halvings=(5,))
    pixels = sizes((8000,), actions)
    assert {pixels[one.tile] for one in actions if isinstance(one, SendTile)} == {1000}
    assert [one for one in actions if isinstance(one, SplitTile)]


def test_what_cannot_be_halved_is_sent_whole() -> None:
    bench = Bench(probe_pixels=1000)
    bench.join("new")
    actions = bench.submit((8000,))
    assert [one.tile for one in actions if isinstance(one, SendTile)] == [0]
