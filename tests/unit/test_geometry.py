"""Rectangles, cuts and written plans, by example."""

import pytest

from fogmqtt.core.geometry import Auto, Grid, Rect, Seams, Size, cut, parse_tile_plan
from fogmqtt.errors import PlanError


def test_a_grid_of_three_columns_gives_three_strips():
    tiles = cut((4, 10), Grid(1, 3))
    assert [tile.core for tile in tiles] == [
        Rect(0, 0, 4, 3),
        Rect(0, 3, 4, 3),
        Rect(0, 6, 4, 4),
    ]


def test_tiles_come_in_row_major_order():
    tiles = cut((4, 4), Grid(2, 2))
    assert [(tile.index, tile.core.top, tile.core.left) for tile in tiles] == [
        (0, 0, 0),
        (1, 0, 2),
        (2, 2, 0),
        (3, 2, 2),
    ]


def test_the_last_row_and_column_of_a_size_are_what_remains():
    tiles = cut((5, 7), Size(4, 4))
    assert tiles[-1].core == Rect(4, 4, 1, 3)


def test_a_size_larger_than_the_image_is_one_tile():
    (tile,) = cut((5, 7), Size(100, 100), halo=3)
    assert tile.core == tile.outer == Rect(0, 0, 5, 7)


def test_a_halo_is_clipped_at_the_images_border_and_never_padded():
    first, second = cut((10, 10), Grid(1, 2), halo=2)
    assert first.outer == Rect(0, 0, 10, 7)
    assert second.outer == Rect(0, 3, 10, 7)


def test_an_aligned_outer_begins_and_ends_at_multiples_or_the_border():
    middle = cut((200, 200), Size(64, 64), halo=1, align=64)[5]
    assert middle.core == Rect(64, 64, 64, 64)
    assert middle.outer == Rect(0, 0, 192, 192)


def test_an_aligned_outer_is_never_narrower_than_its_align():
    last = cut((64, 130), Size(64, 64), align=64)[-1]
    assert last.core == Rect(0, 128, 64, 2)
    assert last.outer == Rect(0, 64, 64, 66)


def test_seams_are_the_sides_that_are_cuts():
    tiles = cut((9, 9), Grid(3, 3))
    assert tiles[0].seams == Seams(bottom=True, right=True)
    assert tiles[4].seams == Seams(True, True, True, True)
    assert tiles[8].seams == Seams(top=True, left=True)


def test_a_rectangle_knows_itself_inside_another():
    assert Rect(5, 6, 2, 3).within(Rect(4, 4, 10, 10)) == Rect(1, 2, 2, 3)


def test_a_rectangle_is_what_its_slices_cut():
    assert Rect(1, 2, 3, 4).slices == (slice(1, 4), slice(2, 6))


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("auto", Auto()),
        (" AUTO ", Auto()),
        ("size 512x256", Size(height=256, width=512)),
        ("grid 3x1", Grid(rows=1, columns=3)),
        ("Grid 3 X 1", Grid(rows=1, columns=3)),
    ],
)
def test_a_plan_is_written_width_before_height(text, plan):
    assert parse_tile_plan(text) == plan


@pytest.mark.parametrize("text", ["", "3x1", "grid 3", "grid 3x", "grid -3x1", "size 1.5x2", "x"])
def test_anything_else_is_no_plan_and_the_error_shows_what_is(text):
    with pytest.raises(PlanError, match=r"size 512x512.*grid 3x1"):
        parse_tile_plan(text)


@pytest.mark.parametrize("text", ["grid 0x1", "grid 1x0", "size 0x9"])
def test_a_plan_without_tiles_is_refused(text):
    with pytest.raises(PlanError, match="at least 1"):
        parse_tile_plan(text)


@pytest.mark.parametrize("plan", [Grid(5, 1), Grid(1, 5)])
def test_a_grid_finer_than_the_image_is_refused(plan):
    with pytest.raises(PlanError, match="finer than the image's 4x4"):
        cut((4, 4), plan)


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_image_without_pixels_has_nothing_to_cut(size):
    with pytest.raises(PlanError, match="nothing to cut"):
        cut(size, Grid(1, 1))
