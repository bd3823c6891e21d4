"""Whatever the image and the plan: cores partition it, outers are what operators need."""

from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid, Rect, Size, cut, parse_tile_plan
from fogmqtt.core.tiling import written_plan

sides = st.integers(1, 90)
sizes = st.tuples(sides, sides)
plans = st.builds(Size, sides, sides) | st.builds(Grid, st.integers(1, 9), st.integers(1, 9))
halos = st.integers(0, 100)
aligns = st.sampled_from([1, 2, 8, 64])


def _cut(size, plan, halo=0, align=1):
    if isinstance(plan, Grid):
        assume(plan.rows <= size[0] and plan.columns <= size[1])
    return cut(size, plan, halo=halo, align=align)


@settings(deadline=None)
@given(sizes, plans)
def test_cores_partition_the_image(size, plan):
    owners = [[0] * size[1] for _ in range(size[0])]
    for tile in _cut(size, plan):
        rows, columns = tile.core.slices
        for row in owners[rows]:
            row[columns] = [count + 1 for count in row[columns]]
    assert all(count == 1 for row in owners for count in row)


@settings(deadline=None)
@given(sizes, plans, halos, aligns)
def test_an_outer_is_the_core_and_its_halo_inside_the_image(size, plan, halo, align):
    image = Rect(0, 0, *size)
    for tile in _cut(size, plan, halo, align):
        assert image.contains(tile.outer)
        assert tile.outer.contains(tile.core)
        assert tile.outer.contains(tile.core.grown(halo, size))


@settings(deadline=None)
@given(sizes, plans, halos)
def test_without_align_an_outer_is_no_pixel_larger_than_it_must_be(size, plan, halo):
    for tile in _cut(size, plan, halo):
        core, outer = tile.core, tile.outer
        assert outer.top == max(0, core.top - halo)
        assert outer.left == max(0, core.left - halo)
        assert outer.bottom == min(size[0], core.bottom + halo)
        assert outer.right == min(size[1], core.right + halo)


@settings(deadline=None)
@given(sizes, plans, halos, aligns)
def test_an_aligned_outer_lies_on_the_lattice_and_is_wide_enough(size, plan, halo, align):
    for tile in _cut(size, plan, halo, align):
        outer = tile.outer
        assert outer.top % align == 0
        assert outer.left % align == 0
        assert outer.bottom % align == 0 or outer.bottom == size[0]
        assert outer.right % align == 0 or outer.right == size[1]
        assert outer.height >= min(align, size[0])
        assert outer.width >= min(align, size[1])


@settings(deadline=None)
@given(sizes, st.integers(1, 9), st.integers(1, 9))
def test_the_tiles_of_a_grid_differ_by_one_pixel_at_most(size, rows, columns):
    tiles = _cut(size, Grid(rows, columns))
    heights = {tile.core.height for tile in tiles}
    widths = {tile.core.width for tile in tiles}
    assert len(tiles) == rows * columns
    assert max(heights) - min(heights) <= 1
    assert max(widths) - min(widths) <= 1


@settings(deadline=None)
@given(sizes, plans)
def test_a_side_is_a_seam_exactly_where_a_neighbour_is(size, plan):
    tiles = _cut(size, plan)
    assume(len(tiles) <= 200)  # every pair is looked at
    for tile in tiles:
        assert tile.seams.left == any(other.core.right == tile.core.left for other in tiles)
        assert tile.seams.top == any(other.core.bottom == tile.core.top for other in tiles)
        assert tile.seams.right == (tile.core.right < size[1])
        assert tile.seams.bottom == (tile.core.bottom < size[0])


@settings(deadline=None)
@given(sizes, plans)
def test_indices_count_up_in_row_major_order(size, plan):
    tiles = _cut(size, plan)
    assert [tile.index for tile in tiles] == list(range(len(tiles)))
    corners = [(tile.core.top, tile.core.left) for tile in tiles]
    assert all(one < another for one, another in pairwise(corners))


@given(plans)
def test_every_plan_reads_back_as_it_was_written(plan):
    assert parse_tile_plan(written_plan(plan)) == plan
