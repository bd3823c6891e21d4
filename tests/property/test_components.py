"""Components equal OpenCV's for any tiling, and received bytes cannot break the gateway."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid, Rect, Seams, Size, cut
from fogmqtt.errors import OperatorError, PipelineError, WireError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.api.measuring import count_differences, decode_part, encode_part
from fogmqtt.operators.segmentation.components import Components
from fogmqtt.operators.segmentation.labels import numbered
from fogmqtt.operators.support.component_codec import MOST_BYTES, ComponentsPart
from fogmqtt.operators.support.packing import pack, unpack
from fogmqtt.operators.support.union_find import roots
from tests.drawn import plans
from tests.tiling import run_stage, tiled

SETTINGS = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
connectivities = pytest.mark.parametrize("connectivity", [4, 8])


def spiral(height: int, width: int, gap: int = 2) -> Image:
    """One line that winds inward, with `gap` pixels between its turns."""
    image = np.zeros((height, width), np.uint8)
    top, left, bottom, right = 0, 0, height - 1, width - 1
    start = left
    while top <= bottom and left <= right:
        image[top, start : right + 1] = image[top : bottom + 1, right] = 9
        if bottom - top >= gap and right - left >= gap:
            image[bottom, left : right + 1] = image[top + gap : bottom + 1, left] = 9
        start, top, left, bottom, right = left, top + gap, left + gap, bottom - gap, right - gap
    return image


def snake(height: int, width: int) -> Image:
    """One line that runs back and forth over all rows."""
    image = np.zeros((height, width), np.uint8)
    image[::2] = 1
    image[1::4, -1] = 1
    image[3::4, 0] = 1
    return image


def comb(height: int, width: int) -> Image:
    """Vertical lines that are connected only in the last row."""
    image = np.zeros((height, width), np.uint8)
    image[:, ::2] = 255
    image[-1] = 255
    return image


def checkerboard(height: int, width: int) -> Image:
    image: Image = np.indices((height, width)).sum(axis=0) % 2
    return image.astype(np.uint8)


def dots(height: int, width: int) -> Image:
    image = np.zeros((height, width), np.uint8)
    image[::2, ::2] = 1
    return image


def full(height: int, width: int) -> Image:
    return np.full((height, width), 255, np.uint8)


def empty(height: int, width: int) -> Image:
    return np.zeros((height, width), np.uint8)


SHAPES: list[Callable[[int, int], Image]] = [
    spiral,
    snake,
    comb,
    checkerboard,
    dots,
    full,
    empty,
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)


@st.composite
def masks(draw: st.DrawFn) -> Image:
    """Patterns, rotated and damaged, and noise of any density."""
    sides = st.integers(1, 40) | st.integers(30, 130)
    height, width = draw(sides), draw(sides)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    noise = rng.random((height, width))
    if draw(st.booleans()):
        smooth = cv2.GaussianBlur(noise, (0, 0), draw(st.floats(0.6, 3)))
        blobs: Image = smooth > np.quantile(smooth, draw(st.floats(0.05, 0.95)))
        return blobs.astype(np.uint8)
    if draw(st.booleans()):
        return (noise < draw(st.floats(0, 1))).astype(np.uint8) * 255
    image = draw(st.sampled_from(SHAPES))(height, width)
    image = np.where(noise < draw(st.sampled_from([0, 0.002, 0.1])), 1 - (image > 0), image)
    turned: Image = np.ascontiguousarray(np.rot90(image, draw(st.integers(0, 3))).astype(np.uint8))
    return turned


def opencv_components(image: Image, connectivity: int) -> list[dict[str, Any]]:
    _, _, stats, centroids = cv2.connectedComponentsWithStats(image, connectivity=connectivity)
    return [
        {
            "number": number,
            "area": int(stats[number, 4]),
            "left": int(stats[number, 0]),
            "top": int(stats[number, 1]),
            "width": int(stats[number, 2]),
            "height": int(stats[number, 3]),
            "centroid": centroids[number].tolist(),
        }
        for number in range(1, len(stats))
    ]


def facts_from_tiles(image: Image, plan: Size | Grid, **params: Any) -> Any:
    return tiled((Components(**params),), image, plan)


@SETTINGS
@given(data=st.data(), image=masks(), connectivity=st.sampled_from([4, 8]))
def test_any_tiling_gives_opencvs_components(
    data: st.DataObject, image: Image, connectivity: int
) -> None:
    facts = facts_from_tiles(
        image, data.draw(plans(image)), connectivity=connectivity, most=100_000
    )
    assert facts["components"] == opencv_components(image, connectivity)


@SETTINGS
@given(data=st.data(), image=masks())
def test_small_components_are_counted_and_the_largest_are_listed(
    data: st.DataObject, image: Image
) -> None:
    chain = (Components(min_area=data.draw(st.integers(1, 30)), most=data.draw(st.integers(1, 9))),)
    facts: Any = tiled(chain, image, data.draw(plans(image)))
    assert count_differences(facts, pipeline.run_whole(chain, image, image))[0] == 0
    every = [one["area"] for one in opencv_components(image, 8)]
    large = [area for area in every if area >= chain[0].min_area]
    assert (facts["count"], facts["smaller"]) == (len(large), len(every) - len(large))
    listed = [one["area"] for one in facts["components"]]
    assert sorted(listed, reverse=True) == sorted(large, reverse=True)[: chain[0].most]
    assert facts["left_out"] == len(large) - len(listed)


@connectivities
@shapes
@pytest.mark.parametrize("plan", [Size(1, 1), Grid(23, 1), Grid(1, 27), Size(2, 3), Size(7, 5)])
def test_patterns_that_cross_every_tile_give_opencvs_components(
    shape: Callable[[int, int], Image], connectivity: int, plan: Size | Grid
) -> None:
    image = shape(23, 27)
    facts = facts_from_tiles(image, plan, connectivity=connectivity, most=100_000)
    assert facts["components"] == opencv_components(image, connectivity)


def test_a_spiral_and_a_snake_are_one_component() -> None:
    for image in (spiral(60, 60), snake(61, 60), comb(60, 61), full(60, 61)):
        assert facts_from_tiles(image, Size(1, 7), connectivity=4)["count"] == 1


@connectivities
def test_a_large_image_on_all_threads_is_numbered_as_opencv_does(connectivity: int) -> None:
    noise = np.random.default_rng(3).random((1500, 1700), np.float32)
    image = (cv2.GaussianBlur(noise, (0, 0), 2) > 0.5).astype(np.uint8)
    facts = facts_from_tiles(image, Grid(3, 4), connectivity=connectivity, most=100_000)
    assert facts["components"] == opencv_components(image, connectivity)


def test_an_operator_before_it_does_not_matter() -> None:
    image = np.random.default_rng(4).integers(0, 256, (90, 121, 3), dtype=np.uint8)
    chain = pipeline.parse("gray | median ksize=5 | threshold value=127 | components")
    facts = tiled(chain, image, Grid(4, 5))
    assert count_differences(facts, pipeline.run_whole(chain, image, image))[0] == 0


# Parts that are sent.


@connectivities
@shapes
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 400), (64, 64), (301, 299)])
def test_no_part_is_larger_than_the_plan_allows(
    shape: Callable[[int, int], Image], connectivity: int, size: tuple[int, int]
) -> None:
    seams = Seams(top=True, left=True, bottom=True, right=True)
    part = Components(connectivity=connectivity).measure(shape(*size), Rect(0, 0, *size), seams)
    assert len(encode_part(part)) <= MOST_BYTES * size[0] * size[1] + 200


@settings(deadline=None, max_examples=100)
@given(share=st.floats(0, 1), side=st.integers(1, 120), seed=st.integers(0, 999))
def test_noise_of_any_density_stays_under_the_bound(share: float, side: int, seed: int) -> None:
    image = (np.random.default_rng(seed).random((side, side)) < share).astype(np.uint8)
    seams = Seams(top=True, left=True, bottom=True, right=True)
    part = Components(connectivity=4).measure(image, Rect(0, 0, side, side), seams)
    assert len(encode_part(part)) <= MOST_BYTES * side * side + 200


# Parts that are received.

PLAN = Size(16, 20)


def facts_of(part: ComponentsPart, connectivity: int = 8) -> Any:
    """Return the facts of an image whose tiles all send this part."""
    tiles = cut((48, 60), PLAN)
    operator = Components(connectivity=connectivity)
    arrived = decode_part(operator, encode_part(part))
    return operator.gather([(tile, arrived) for tile in tiles], Spec(48, 60))


def numbers(*values: int) -> Any:
    return pack(np.array(values, np.int64))


@pytest.mark.parametrize(
    "part",
    [
        ComponentsPart((b"\0", b"", b"", b""), numbers()),
        ComponentsPart((b"\xff", b"", b"", b""), numbers()),
        ComponentsPart((b"\xff", b"\xff\xff", b"\xff\xff\xff\xff", b"\xff" * 8), numbers()),
        ComponentsPart((b"", b"\0", b"", b""), numbers()),
        ComponentsPart(numbers(*[0] * 8 * 1000), numbers()),
        ComponentsPart(numbers(0, 320, 0, 0, 0, 0, 0, 0), numbers()),
        ComponentsPart(numbers(2**62, 0, 0, 0, 0, 0, 0, 0), numbers()),
        ComponentsPart(numbers(319, 0, 0, 2, 0, 0, 0, 0), numbers()),
        ComponentsPart(numbers(0, 0, 0, 0, 16, 20, 0, 0), numbers()),
        ComponentsPart(numbers(0, 0, 0, 0, 0, 0, 2**62, 0), numbers()),
        ComponentsPart(numbers(0, 0, 0, 0, 0, 0, 0, 1), numbers()),
        ComponentsPart(numbers(), numbers(35, 1)),
        ComponentsPart(numbers(), numbers(2**62, 2**62, 0, 0)),
        ComponentsPart(numbers(), numbers(1, 2, 3)),
        ComponentsPart(numbers(), numbers(4, 0), 10**15),
        ComponentsPart(numbers(), numbers(), 0, b"\0"),
        ComponentsPart(numbers(), numbers(), 0, b"\0" * 100_000),
    ],
)
def test_impossible_components_are_refused(part: ComponentsPart) -> None:
    with pytest.raises(WireError, match="components: tile 0: "):
        facts_of(part)


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x80", b"\x81\xa7regions\xc4\0", b"\xdf" * 9])
def test_invalid_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="components: the result is not a part of its facts"):
        decode_part(Components(), data)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), connectivity=st.sampled_from([4, 8]))
def test_a_part_with_any_byte_changed_is_facts_or_refused(
    data: st.DataObject, connectivity: int
) -> None:
    image = (np.random.default_rng(5).random((48, 60)) < 0.02).astype(np.uint8)
    operator, tiles = Components(connectivity=connectivity), cut((48, 60), PLAN)
    parts: list[Any] = [
        (tile, operator.for_tile(tile.outer, (48, 60)).measure(image, tile.core, tile.seams))
        for tile in tiles
        if tile.index == 4
    ]
    part = msgspec.structs.asdict(parts[0][1])
    field = data.draw(st.sampled_from(["regions", "rim"]))
    rungs = [bytearray(rung) for rung in part[field]]
    place = data.draw(st.integers(0, len(rungs[0]) - 1))
    rungs[0][place] = data.draw(st.integers(0, 255))
    changed = ComponentsPart(**{**part, field: tuple(bytes(rung) for rung in rungs)})
    try:
        facts = operator.gather([(tiles[4], changed)], Spec(48, 60))
    except WireError:
        return
    for one in facts["components"]:
        box = Rect(one["top"], one["left"], one["height"], one["width"])
        assert tiles[4].core.contains(box)
        assert 1 <= one["area"] <= box.pixels


def test_a_false_part_of_a_million_bytes_takes_at_most_a_dozen_times_that_memory() -> None:
    part = ComponentsPart(
        (b"\xfe" * 1_000_000, b"", b"", b""), (b"\xfe" * 1_000_000, b"", b"", b"")
    )
    tracemalloc.start()
    with pytest.raises(WireError):
        facts_of(part)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 24_000_000


# The functions below it.


@settings(deadline=None)
@given(st.lists(st.integers(0, 300) | st.integers(0, 2**63 - 1)))
def test_packed_numbers_are_unpacked(values: list[int]) -> None:
    assert unpack(pack(np.array(values, np.int64))).tolist() == values


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_items_in_pairs_are_in_one_set(count: int, data: st.DataObject) -> None:
    thing = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(thing, thing)))
    smallest = list(range(count))
    for _ in range(count):
        for one, other in pairs:
            smallest[one] = smallest[other] = min(smallest[one], smallest[other])
    assert roots(count, np.array(pairs, np.int64).reshape(-1, 2)).tolist() == smallest


def test_a_long_chain_in_any_order_takes_few_rounds() -> None:
    order = np.random.default_rng(6).permutation(200_000)
    for chain in (order, np.sort(order), np.sort(order)[::-1]):
        pairs = np.stack([chain[:-1], chain[1:]], axis=1)
        assert not roots(len(order), pairs).any()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"connectivity": 6}, "connectivity=6: expected 4 or 8"),
        ({"min_area": 0}, "min_area=0: expected 1 to 2147483647 pixels"),
        ({"most": 0}, "most=0: expected 1 to 100000"),
        ({"place": (-1, 0)}, "expected 0 or more"),
    ],
)
def test_parameters_out_of_range_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        registry.build("components", params)


def parts(image: Image) -> Image:
    """A mask of an image with parts of several sizes."""
    return cv2.threshold(cv2.GaussianBlur(image, (0, 0), 2), 127, 255, cv2.THRESH_BINARY)[1]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("min_area", [1, 9])
def test_a_label_image_has_the_numbers_of_the_components(connectivity: int, min_area: int) -> None:
    mask = parts(np.random.default_rng(4).integers(0, 256, (150, 210), np.uint8))
    params = f"connectivity={connectivity} min_area={min_area}"
    chain = pipeline.parse(f"labels {params}")
    labels = pipeline.run_whole(chain, mask, mask)
    assert isinstance(labels, np.ndarray)
    assert labels.dtype == np.uint16
    facts = tiled(pipeline.parse(f"components {params}"), mask, Grid(3, 4))
    assert isinstance(facts, dict)
    assert facts["count"] == labels.max() > 5
    for one in facts["components"]:
        rows, columns = np.nonzero(labels == one["number"])
        assert len(rows) == one["area"]
        assert (columns.min(), rows.min()) == (one["left"], one["top"])
    if min_area == 1:
        assert np.array_equal(labels, cv2.connectedComponents(mask, connectivity=connectivity)[1])


def test_more_components_than_a_label_image_can_count_are_refused_with_the_way_out() -> None:
    dots: Image = np.zeros((600, 600), np.uint8)
    dots[::2, ::2] = 255
    with pytest.raises(OperatorError, match="labels: 90000 components, over 65535; raise min_area"):
        registry.build("labels", {}).process(dots)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("text", ["components", "components min_area=9 most=5"])
def test_intensities_are_those_of_the_original_under_each_component(text: str, dtype: str) -> None:
    rng = np.random.default_rng(4)
    mask = parts(rng.integers(0, 256, (150, 210), np.uint8))
    original = (rng.random(mask.shape) * (1 if dtype == "float32" else np.iinfo(dtype).max)).astype(
        dtype
    )
    operator = registry.build("components", dict(_params(f"{text} intensities=true")))
    prepared = operator.prepare(mask, original)
    (stage,) = pipeline.split_stages((operator,), Spec.of(mask))
    facts = run_stage(stage, (prepared,), mask, cut(mask.shape, Grid(3, 4)))
    assert facts == pipeline.run_whole((operator,), mask, original)
    plain = pipeline.run_whole(pipeline.parse(text), mask, mask)
    assert isinstance(facts, dict)
    assert isinstance(plain, dict)
    labels, _ = numbered(mask, 8, 9 if "min_area" in text else 1)
    for one, bare in zip(facts["components"], plain["components"], strict=True):
        values = original[labels == one["number"]]
        found = one.pop("intensity")
        assert found == {
            "mean": pytest.approx(values.mean(dtype=np.float64)),
            "min": values.min().item(),
            "max": values.max().item(),
        }
        assert one == bare


def _params(text: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (word.partition("=") for word in text.split()[1:])]


def test_a_stage_begins_at_components_only_for_intensities() -> None:
    spec = Spec(90, 90, 1)
    text = "median | threshold | components"
    assert len(pipeline.split_stages(pipeline.parse(text), spec)) == 1
    assert len(pipeline.split_stages(pipeline.parse(f"{text} intensities=true"), spec)) == 2


def test_intensities_of_a_colour_image_are_those_in_gray() -> None:
    colour = np.random.default_rng(4).integers(0, 256, (90, 120, 3), np.uint8)
    chain = pipeline.parse("gray | gaussian | otsu | components intensities=true")
    facts = tiled(chain, colour, Grid(3, 2))
    assert facts == pipeline.run_whole(chain, colour, colour)
    assert isinstance(facts, dict)
    assert 0 <= facts["components"][0]["intensity"]["mean"] <= 255


def test_no_component_has_no_intensity() -> None:
    empty: Image = np.zeros((9, 9), np.uint8)
    chain = pipeline.parse("components intensities=true")
    assert pipeline.run_whole(chain, empty, empty)["components"] == []  # type: ignore[call-overload]


def test_intensities_of_an_original_of_another_size_are_refused() -> None:
    chain = pipeline.parse("gray | resize factor=0.5 | otsu | components intensities=true")
    image: Image = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(OperatorError, match="must not change the size before it"):
        pipeline.run_whole(chain, image, image)


def test_facts_that_do_not_list_all_name_the_limit() -> None:
    dots: Image = np.zeros((60, 60), np.uint8)
    dots[::5, ::5] = 255
    facts = tiled(pipeline.parse("components most=100"), dots, Grid(2, 2))
    assert isinstance(facts, dict)
    assert (
        facts["note"] == "44 more are not listed: most=100 lists the largest; raise it, or min_area"
    )
    every = tiled(pipeline.parse("components"), dots, Grid(2, 2))
    assert isinstance(every, dict)
    assert "note" not in every
    contours = pipeline.run_whole(pipeline.parse("contours most=100"), dots, dots)
    assert isinstance(contours, dict)
    assert contours["note"].startswith("44 more are not listed: most=100")
    lines = pipeline.run_whole(pipeline.parse("lines most=1 votes=5 length=1 gap=9"), dots, dots)
    assert isinstance(lines, dict)
    assert lines["note"].endswith("most=1 lists the first; raise it, or votes")
