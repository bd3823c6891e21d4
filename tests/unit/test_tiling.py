"""The automatic plan: fits the message, feeds the fleet, wastes little."""

import pytest

from fogmqtt.core.geometry import Auto, Grid, Size, cut, parse_tile_plan
from fogmqtt.core.tiling import HEADER_BYTES, auto_plan, check_plan, written_plan
from fogmqtt.errors import PlanError

GRAY = {"sent_pixel_bytes": 1, "result_pixel_bytes": 1, "limit_bytes": 900_000}
COLOUR = {"sent_pixel_bytes": 3, "result_pixel_bytes": 3, "limit_bytes": 900_000}


def test_without_a_halo_tiles_are_full_width_strips():
    plan = auto_plan((3000, 4000), workers=6, **GRAY)
    assert plan.width == 4000


def test_a_row_too_long_for_a_message_is_cut_across():
    plan = auto_plan((10, 1_000_000), workers=2, **GRAY)
    assert plan.width < 900_000


def test_a_fleet_has_about_three_tiles_per_worker():
    assert len(cut((3000, 4000), auto_plan((3000, 4000), workers=6, **GRAY))) == 18


def test_tiles_are_not_cut_below_what_is_worth_a_message():
    size = (1080, 1920)
    assert len(cut(size, auto_plan(size, workers=1000, **GRAY))) <= 1080 * 1920 // 16_384 + 1
    assert len(cut(size, auto_plan(size, workers=20, **GRAY))) <= 1080 * 1920 // 65_536 + 1


def test_a_small_image_still_gives_each_worker_a_tile():
    assert len(cut((256, 256), auto_plan((256, 256), workers=3, **GRAY))) == 3


def test_a_tiny_image_stays_whole():
    assert auto_plan((60, 60), workers=8, **GRAY) == Size(60, 60)


def test_a_plan_without_any_worker_is_a_plan_all_the_same():
    assert auto_plan((100, 100), workers=0, **GRAY) == Size(100, 100)


def test_with_a_halo_tiles_are_about_square():
    plan = auto_plan((8000, 8000), workers=4, halo=8, **GRAY)
    assert 0.5 < plan.width / plan.height < 2


def test_float_operators_get_tiles_that_begin_at_multiples_of_their_align():
    plan = auto_plan((3000, 4000), workers=4, align=64, **COLOUR)
    assert plan.width % 64 == 0
    assert plan.height % 64 == 0


def test_a_narrow_last_tile_of_a_float_operator_fits_too():
    size = (64, 64 * 3 + 1)
    plan = auto_plan(
        size, sent_pixel_bytes=1, result_pixel_bytes=1, limit_bytes=9300, workers=9, align=64
    )
    worst = max(tile.outer.pixels for tile in cut(size, plan, align=64))
    assert worst <= 9300 - HEADER_BYTES


def test_messages_stay_at_the_size_that_moves_the_most_even_where_more_is_allowed():
    roomy = GRAY | {"limit_bytes": 64_000_000}
    tiles = cut((20_000, 20_000), auto_plan((20_000, 20_000), workers=1, halo=2, **roomy))
    assert max(tile.outer.pixels for tile in tiles) <= 1_000_000


def test_a_wide_halo_gets_larger_messages_where_they_are_allowed():
    roomy = GRAY | {"limit_bytes": 64_000_000}
    size = (5000, 5000)
    tiles = cut(size, auto_plan(size, workers=4, halo=400, **roomy), halo=400)
    assert sum(tile.outer.pixels for tile in tiles) < 2 * 25_000_000


def test_a_halo_as_large_as_the_image_is_not_sent_to_everybody():
    assert auto_plan((300, 300), workers=6, halo=300, **GRAY) == Size(300, 300)


def test_a_result_larger_than_its_tile_bounds_the_plan():
    plan = auto_plan(
        (1000, 1000), sent_pixel_bytes=1, result_pixel_bytes=16, limit_bytes=100_000, workers=1
    )
    assert plan.width * plan.height * 16 <= 100_000 - HEADER_BYTES


def test_a_halo_that_no_message_holds_is_refused_with_the_way_out():
    with pytest.raises(PlanError, match=r"4096 bytes with a halo of 500 .*max_message_bytes"):
        auto_plan(
            (4000, 4000),
            sent_pixel_bytes=1,
            result_pixel_bytes=1,
            limit_bytes=4096,
            workers=3,
            halo=500,
        )


def test_an_explicit_plan_that_fits_is_let_through():
    check_plan(cut((900, 900), Grid(3, 3)), **GRAY)


def test_an_explicit_plan_over_the_limit_is_refused_with_one_that_fits():
    with pytest.raises(PlanError, match="size 3000x273"):
        check_plan(cut((3000, 3000), Grid(1, 3)), **GRAY)


def test_a_result_over_the_limit_is_refused_by_its_direction():
    with pytest.raises(PlanError, match="on the way back"):
        check_plan(
            cut((3000, 3000), Grid(10, 1)),
            sent_pixel_bytes=1,
            result_pixel_bytes=4,
            limit_bytes=950_000,
        )


def test_an_explicit_plan_whose_halo_never_fits_is_told_so():
    with pytest.raises(PlanError, match="no tile fits"):
        check_plan(
            cut((3000, 3000), Grid(9, 9), halo=500),
            sent_pixel_bytes=1,
            result_pixel_bytes=1,
            limit_bytes=4096,
            halo=500,
        )


@pytest.mark.parametrize("plan", [Auto(), Size(20, 30), Grid(2, 3)])
def test_a_written_plan_reads_back(plan):
    assert parse_tile_plan(written_plan(plan)) == plan


def test_tiles_that_would_be_nearly_all_halo_are_refused_with_the_way_out():
    windows = {"sent_pixel_bytes": 3, "result_pixel_bytes": 0.25, "workers": 6}
    with pytest.raises(
        PlanError, match=r"would send the image \d+ times; .* to 1800000, put 'gray"
    ):
        auto_plan((3000, 4000), limit_bytes=900_000, halo=256, **windows)
    with pytest.raises(PlanError, match=r"no tile fits .* to 2765824, .* a smaller size, window"):
        auto_plan((3000, 4000), limit_bytes=900_000, halo=320, **windows)
    tiles = cut((3000, 4000), auto_plan((3000, 4000), limit_bytes=2_765_824, halo=320, **windows))
    assert len(tiles) < 200


def test_a_stage_that_sends_nothing_back_for_a_pixel_is_planned_by_what_it_gets() -> None:
    load = {**GRAY, "result_pixel_bytes": 0.0}
    assert auto_plan((3000, 4000), workers=6, **load) == auto_plan((3000, 4000), workers=6, **GRAY)
