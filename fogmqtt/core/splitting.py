"""Halves of a tile: what a device gets that a whole one would keep busy for too long.

Halving is a function of the tile alone, so whoever repeats it finds the same tiles.
"""

from __future__ import annotations

from fogmqtt.core.geometry import Rect, Tile

#: No tile is halved to less, pixels: the messages around it would cost more than its work.
LEAST_PIXELS = 16_384
#: A core is at least so many times as wide and high as what it needs around itself.
_CORE_TO_HALO = 8
#: Rows lie in one piece of memory, so a core is cut across until it is so much wider than high.
_FLATTEST = 4


def halve(
    tile: Tile, *, halo: int, align: int, least_pixels: int | None = None
) -> tuple[Tile, Tile] | None:
    """Two tiles of the same pixels, the upper or left one first, both with the tile's index.

    None where it cannot be cut at a multiple of `align`, or a half would have less than
    `least_pixels`: by default what is worth its messages and not mostly halo.
    """
    core = tile.core
    if least_pixels is None:
        reach = -(-halo // align) * align
        least_pixels = max(LEAST_PIXELS, (_CORE_TO_HALO * reach) ** 2)
    flat = core.width > _FLATTEST * core.height and halo > 0
    cores = (_beside if flat else _above)(core, align) or (_above if flat else _beside)(core, align)
    if cores is None or min(one.pixels for one in cores) < least_pixels:
        return None
    first, second = (
        Tile(tile.index, one, one.grown(halo, tile.size, align), tile.size) for one in cores
    )
    return first, second


def parts(tile: Tile, *, halo: int, align: int) -> tuple[int, ...]:
    """The pixels, halo included, of its largest part after one halving of all, two, …"""
    halves = halve(tile, halo=halo, align=align)
    if halves is None:
        return ()
    below = zip(*(parts(one, halo=halo, align=align) for one in halves), strict=False)
    return max(one.outer.pixels for one in halves), *(max(pair) for pair in below)


def _above(core: Rect, align: int) -> tuple[Rect, Rect] | None:
    at = _middle(core.top, core.bottom, align)
    if at is None:
        return None
    return (
        Rect(core.top, core.left, at - core.top, core.width),
        Rect(at, core.left, core.bottom - at, core.width),
    )


def _beside(core: Rect, align: int) -> tuple[Rect, Rect] | None:
    at = _middle(core.left, core.right, align)
    if at is None:
        return None
    return (
        Rect(core.top, core.left, core.height, at - core.left),
        Rect(core.top, at, core.height, core.right - at),
    )


def _middle(start: int, end: int, align: int) -> int | None:
    """The multiple of `align` next to the middle, strictly between both."""
    at = round((start + end) / 2 / align) * align
    return at if start < at < end else None
