"""Each window belongs to one tile that contains it, and small objects lie in some window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid, Rect, Size, cut
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts
from fogmqtt.operators.support.sliding_window import (
    TileFindings,
    WindowDetector,
    WindowFindings,
    WindowGrid,
)

sides = st.integers(1, 90)


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    side = draw(st.integers(1, 60))
    return WindowGrid((draw(sides), draw(sides)), side, draw(st.integers(1, side)))


@st.composite
def plans(draw: st.DrawFn, size: tuple[int, int]) -> Size | Grid:
    rows, columns = (draw(st.integers(1, extent)) for extent in size)
    return Grid(rows, columns) if draw(st.booleans()) else Size(rows, columns)


@settings(deadline=None)
@given(st.data())
def test_every_window_lies_in_the_one_tile_that_it_belongs_to(data: st.DataObject) -> None:
    grid = data.draw(grids())
    plan = data.draw(plans(grid.size))
    owners: Counter[int] = Counter()
    for tile in cut(grid.size, plan, halo=-(-grid.side // 2)):
        for index in grid.owned(tile.core):
            owners[index] += 1
            assert tile.outer.contains(grid.window(index))
    assert owners == Counter(range(len(grid)))


@settings(deadline=None)
@given(grids())
def test_windows_are_of_one_size_within_the_image_and_reach_its_borders(
    grid: WindowGrid,
) -> None:
    windows = [grid.window(index) for index in range(len(grid))]
    assert {(window.height, window.width) for window in windows} == {
        (min(grid.side, grid.size[0]), min(grid.side, grid.size[1]))
    }
    assert len(set(windows)) == len(windows)
    assert all(Rect(0, 0, *grid.size).contains(window) for window in windows)
    first, last = windows[0], windows[-1]
    assert (first.top, first.left, last.bottom, last.right) == (0, 0, *grid.size)


@settings(deadline=None)
@given(st.data())
def test_an_object_no_larger_than_the_overlap_lies_in_some_window(data: st.DataObject) -> None:
    grid = data.draw(grids())
    most = max(1, grid.side - grid.stride)
    height, width = (data.draw(st.integers(1, min(most, extent))) for extent in grid.size)
    top = data.draw(st.integers(0, grid.size[0] - height))
    left = data.draw(st.integers(0, grid.size[1] - width))
    thing = Rect(top, left, height, width)
    assert any(grid.window(index).contains(thing) for index in range(len(grid)))


@settings(deadline=None)
@given(st.data())
def test_the_limit_of_findings_is_never_larger_than_the_tile(data: st.DataObject) -> None:
    grid = data.draw(grids())
    for tile in cut(grid.size, data.draw(plans(grid.size)), halo=-(-grid.side // 2)):
        added = sum(grid.added(grid.window(index)) for index in grid.owned(tile.core))
        assert added <= 4 * tile.outer.pixels


@pytest.mark.parametrize("window", [0, 100_000_000])
def test_a_window_takes_few_bytes_besides_its_findings(window: int) -> None:
    view: WindowFindings[msgspec.Struct] = WindowFindings(window, [])
    assert len(msgspec.msgpack.encode(TileFindings([view]))) < 20


class Dot(msgspec.Struct, frozen=True, array_like=True):
    brightness: int
    y: int
    x: int


@dataclass(frozen=True)
class Dots(WindowDetector[Dot]):
    """Finds every pixel that is not black: more than a window may report."""

    name: ClassVar[str] = "dots"
    part: ClassVar[Any] = TileFindings[Dot]

    def window_layout(self) -> tuple[int, int]:
        return 12, 8

    def detect(self, pixels: Image) -> Sequence[Dot]:
        dots = [Dot(int(pixels[y, x]), int(y), int(x)) for y, x in np.argwhere(pixels)]
        return sorted(dots, key=lambda dot: (-dot.brightness, dot.y, dot.x))

    def merge(self, found: Sequence[tuple[Rect, Dot]], size: tuple[int, int]) -> Facts:
        return {"dots": [(w.top + dot.y, w.left + dot.x, dot.brightness) for w, dot in found]}


@settings(deadline=None)
@given(st.data())
def test_findings_over_the_limit_are_left_out_alike_for_any_tiling(
    data: st.DataObject,
) -> None:
    size = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    share = data.draw(st.sampled_from([0.01, 0.05, 0.5]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = np.where(rng.random(size) < share, rng.integers(1, 99, size), 0).astype(np.uint8)
    operator = Dots()
    parts = []
    for tile in cut(size, data.draw(plans(size)), halo=operator.halo):
        here = operator.for_tile(tile.outer, size)
        pixels = image[tile.outer.slices]
        part = here.measure(pixels, tile.core.within(tile.outer), tile.seams)
        assert len(msgspec.msgpack.encode(part)) <= tile.outer.pixels + 6 * len(part.views) + 10
        parts.append((tile, part))
    whole = operator.measure_whole(image)
    assert operator.gather(parts, Spec.of(image)) == whole
    assert len(whole["dots"]) + whole["left_out"] >= np.count_nonzero(image)


def test_the_best_findings_of_a_window_are_kept() -> None:
    image = np.arange(1, 145, dtype=np.uint8).reshape(12, 12)
    facts = Dots().measure_whole(image)
    assert [brightness for *_, brightness in facts["dots"]] == [144, 143, 142]
    assert facts["left_out"] == 141
