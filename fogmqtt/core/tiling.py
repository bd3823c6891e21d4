"""The automatic tile plan: tiles that fit into a message and keep a fleet busy.

A tile travels twice: its outer pixels to the device, its core back. Both must fit into a message.
Within that limit, a plan has a few tiles per worker, so that a fast device can take more than its
share, and as few halo pixels as possible, since every one of them is sent and processed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from fogmqtt.core.geometry import Auto, Grid, Rect, Size, Tile, TilePlan
from fogmqtt.errors import PlanError

#: Room in a message for everything but pixels, in bytes.
HEADER_BYTES = 1024
#: Messages over this size move fewer bytes per second, whatever the limit allows.
BEST_MESSAGE_BYTES = 1_000_000
#: With fewer tiles the slowest device would hold the last one while the others idle.
TILES_PER_WORKER = 3
#: Below this number of core pixels, the messages around a tile cost more than its work.
WORTHWHILE_PIXELS = 65_536
#: A small image is cut below that, down to here, if every worker then has a tile.
SMALLEST_PIXELS = 16_384
#: Tiles that are nearly all halo would send the image more often than this, which is no use.
MOST_TIMES_SENT = 20


class _Load(Struct, frozen=True):
    """What a stage sends per pixel, and what it needs around a core."""

    sent: float
    result: float
    halo: int
    align: int

    @property
    def reach(self) -> int:
        """How far an outer reaches beyond a core that begins and ends at multiples of `align`."""
        return _up(self.halo, self.align)

    def outer(self, step: int, extent: int) -> int:
        """The longest outer along one side, for cores of `step` pixels."""
        if step >= extent:
            return extent
        seams = 1 if 2 * step >= extent else 2
        # A last core shorter than `align` is grown backwards to at least that.
        least = 2 * self.align - 1 if self.align > 1 else 1
        return min(extent, max(step + seams * self.reach, least))

    def longest(self, extent: int, outer: int, core: int) -> int:
        """The longest step with an outer of at most `outer` and a core of at most `core`; or 0."""
        if extent <= min(outer, core):
            return extent
        for seams in (1, 2):
            step = _down(min(outer - seams * self.reach, core), self.align)
            if step > 0 and self.outer(step, extent) <= outer:
                return step
        return 0

    def sent_pixels(self, plan: Size, size: tuple[int, int]) -> int:
        """The approximate number of outer pixels of the plan."""
        sides = zip(_counts(plan, size), size, strict=True)
        down, across = (
            min(count * side, side + (count - 1) * 2 * self.reach) for count, side in sides
        )
        return down * across


def auto_plan(
    size: tuple[int, int],
    *,
    sent_pixel_bytes: float,
    result_pixel_bytes: float,
    limit_bytes: int,
    workers: int,
    halo: int = 0,
    align: int = 1,
) -> Size:
    """The plan for an image of `size` (height, width) and a fleet of `workers`.

    No message exceeds `limit_bytes`, header included; with base64 pass 3/4 of the limit. Without a
    halo the tiles are full-width strips, whose rows are contiguous in memory, otherwise the grid
    with the fewest outer pixels. The plan is deterministic.

    Raises PlanError where not even the smallest tile fits, and where the halo leaves so little of
    each tile that the image would be sent over MOST_TIMES_SENT times.
    """
    load = _Load(sent_pixel_bytes, result_pixel_bytes, halo, align)
    wanted = _wanted_tiles(size, workers)
    plan = _best(size, load, min(limit_bytes, BEST_MESSAGE_BYTES), wanted)
    while plan is None or _wasteful(plan, size, load):
        # Try fewer, larger tiles, which leave room for a wide halo.
        wanted //= 2
        larger = _best(size, load, limit_bytes, wanted)
        if larger is None:
            raise PlanError(_nothing_fits(load, limit_bytes))
        plan = larger
        if wanted <= 1:
            break
    times = load.sent_pixels(plan, size) / (size[0] * size[1])
    if times > MOST_TIMES_SENT:
        raise PlanError(_mostly_halo(load, limit_bytes, round(times)))
    return plan


def check_plan(
    tiles: Sequence[Tile],
    *,
    sent_pixel_bytes: float,
    result_pixel_bytes: float,
    limit_bytes: int,
    halo: int = 0,
    align: int = 1,
) -> None:
    """Raise PlanError where a tile of an explicit plan makes a message over the limit.

    The message names the largest tile that fits. `tiles` are of one image and not empty.
    """
    room = limit_bytes - HEADER_BYTES
    sent = max(tile.outer.pixels for tile in tiles) * sent_pixel_bytes
    result = max(tile.core.pixels for tile in tiles) * result_pixel_bytes
    if max(sent, result) <= room:
        return
    load = _Load(sent_pixel_bytes, result_pixel_bytes, halo, align)
    largest = _best(tiles[0].size, load, limit_bytes, wanted=1)
    if largest is None:
        raise PlanError(_nothing_fits(load, limit_bytes))
    way = "back" if result > sent else "out"
    raise PlanError(
        f"tiles: the largest tile takes {max(sent, result):.0f} bytes on the way {way}, over the "
        f"{room} that fit into a message of {limit_bytes}; write tiles: auto or "
        f"{written_plan(largest)!r}, or raise wire.max_message_bytes"
    )


def written_plan(plan: TilePlan) -> str:
    """A plan as `parse_tile_plan` reads it."""
    match plan:
        case Auto():
            return "auto"
        case Size():
            return f"size {plan.width}x{plan.height}"
        case Grid():
            return f"grid {plan.columns}x{plan.rows}"


def _wanted_tiles(size: tuple[int, int], workers: int) -> int:
    """The number of tiles that suits the fleet."""
    pixels = size[0] * size[1]
    worthwhile = pixels // WORTHWHILE_PIXELS
    one_each = min(workers, pixels // SMALLEST_PIXELS)
    return max(1, min(TILES_PER_WORKER * workers, max(worthwhile, one_each)))


def _best(size: tuple[int, int], load: _Load, limit_bytes: int, wanted: int) -> Size | None:
    def badness(plan: Size) -> tuple[bool, int, int]:
        rows, columns = _counts(plan, size)
        return rows * columns < wanted, load.sent_pixels(plan, size), columns

    return min(
        _candidates(size, load, limit_bytes - HEADER_BYTES, wanted), key=badness, default=None
    )


def _candidates(size: tuple[int, int], load: _Load, room: int, wanted: int) -> Iterator[Size]:
    """For each width worth trying, the tallest tile that fits and leaves enough tiles."""
    height, width = size
    for across in _steps(width, load.align):
        outer = int(room / (load.outer(across, width) * load.sent))
        core = int(room / (across * load.result)) if load.result else height
        fits = load.longest(height, outer, core)
        if fits < 1:
            continue
        rows = max(-(-height // fits), -(-wanted // -(-width // across)))
        even = min(fits, _up(-(-height // rows), load.align))
        if load.outer(even, height) <= outer:
            yield Size(even, across)


def _steps(extent: int, align: int) -> Iterator[int]:
    """The lengths that cut `extent` into 1, 2, 3… parts, without repeating one."""
    step, parts = extent, 1
    while True:
        yield step
        if step <= align:
            return
        parts = max(parts + 1, -(-extent // step) + 1)
        following = _up(-(-extent // parts), align)
        step = following if following < step else _down(step - 1, align)


def _counts(plan: Size, size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // plan.height), -(-size[1] // plan.width)


def _wasteful(plan: Size, size: tuple[int, int], load: _Load) -> bool:
    return load.sent_pixels(plan, size) > 1.5 * size[0] * size[1]


def _nothing_fits(load: _Load, limit_bytes: int) -> str:
    return (
        f"tiles: no tile fits into a message of {limit_bytes} bytes with a halo of {load.halo} "
        f"pixels at {load.sent:g} bytes each; {_suggestions(load, limit_bytes)}"
    )


def _mostly_halo(load: _Load, limit_bytes: int, times: int) -> str:
    return (
        f"tiles: with a halo of {load.halo} pixels at {load.sent:g} bytes each, messages of "
        f"{limit_bytes} bytes would send the image {times} times; {_suggestions(load, limit_bytes)}"
    )


def _suggestions(load: _Load, limit_bytes: int) -> str:
    """Cores as large as their halo are acceptable: the image is sent nine times."""
    enough = (
        int((3 * max(load.reach, load.align)) ** 2 * max(load.sent, load.result)) + HEADER_BYTES
    )
    return (
        f"raise wire.max_message_bytes (and the broker's limit) to {max(enough, 2 * limit_bytes)}, "
        "put 'gray' first if the image has colours, or use a smaller halo: "
        "a smaller size, window or kernel"
    )


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


def _down(value: int, align: int) -> int:
    return value // align * align


#: A part with fewer pixels than this is not worth its messages.
LEAST_PIXELS = 16_384
#: A core is at least this many times as wide and high as its halo.
_CORE_TO_HALO = 8
#: Rows are contiguous in memory, so a core is cut across until it is this much wider than high.
_MAX_FLATNESS = 4


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
    flat = core.width > _MAX_FLATNESS * core.height and halo > 0
    cores = (_beside if flat else _above)(core, align) or (_above if flat else _beside)(core, align)
    if cores is None or min(one.pixels for one in cores) < least_pixels:
        return None
    first, second = (
        Tile(tile.index, one, one.grown(halo, tile.size, align), tile.size) for one in cores
    )
    return first, second


def parts(tiles: Sequence[Tile], *, halo: int, align: int) -> tuple[tuple[int, ...], ...]:
    """For each tile the pixels, halo included, of its largest part after one halving of all, two, …

    Most tiles are alike, and so are their halves: each shape is halved once.
    """
    known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def below(tile: Tile) -> tuple[int, ...]:
        key = _shape_key(tile, align)
        if key not in known:
            halves = halve(tile, halo=halo, align=align)
            known[key] = () if halves is None else of_halves(*halves)
        return known[key]

    def of_halves(first: Tile, second: Tile) -> tuple[int, ...]:
        largest = max(first.outer.pixels, second.outer.pixels)
        return largest, *map(max, below(first), below(second))

    return tuple(below(tile) for tile in tiles)


def _shape_key(tile: Tile, align: int) -> tuple[int, ...]:
    """Return what determines how a tile is halved."""
    core, outer = tile.core, tile.outer
    # The middle of a tile is rounded to an even multiple of the alignment.
    phase = core.top % (2 * align), core.left % (2 * align)
    above, beside = core.top - outer.top, core.left - outer.left
    return core.height, core.width, *phase, above, beside, outer.height, outer.width


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
