"""For all measuring operators the facts from tiles equal those of the whole, and OpenCV's."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid, Size, cut
from fogmqtt.errors import OperatorError, PipelineError, WireError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.api.measuring import (
    Part,
    as_json,
    count_differences,
    decode_part,
    encode_part,
)
from fogmqtt.operators.histogram import Counts
from fogmqtt.operators.stats import Moments, Sums
from fogmqtt.operators.support.packing import pack
from tests.drawn import images, plans
from tests.tiling import tiled

SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

#: Parameters of the measuring operators that are tiled and tested here.
PARAMS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "components": {
        "connectivity": st.sampled_from([4, 8]),
        "min_area": st.integers(1, 12),
        "most": st.sampled_from([1, 5, 1000, 100_000]),
    },
    "histogram": {"bins": st.integers(0, 8).map(lambda power: 2**power)},
    "stats": {},
}
#: Detectors, which have tests with images of their own.
DETECTORS = {"codes", "dnn"}


def assert_tiled_equals_whole(text: str, image: Image, plan: Size | Grid) -> None:
    chain = pipeline.parse(text)
    before = image.copy()
    whole = pipeline.run_whole(chain, image, image)
    got = tiled(chain, image, plan)
    assert count_differences(got, whole)[0] == 0, f"{text} on {Spec.of(image)} by {plan}"
    assert np.array_equal(image, before), "the image that came in was changed"


@pytest.mark.parametrize("name", sorted(PARAMS))
@SETTINGS
@given(data=st.data())
def test_facts_gathered_from_tiles_equal_those_of_the_whole(name: str, data: st.DataObject) -> None:
    operator = registry.build(name, data.draw(st.fixed_dictionaries({}, optional=PARAMS[name])))
    image = data.draw(images())
    try:
        operator.output(Spec.of(image))
    except OperatorError:
        gray = image if image.ndim == 2 else image[..., 0]
        image = (gray > gray.mean()).astype(np.uint8) * 255
    assert_tiled_equals_whole(str(operator), image, data.draw(plans(image)))


def test_every_tiled_measuring_operator_is_tested() -> None:
    operators = (registry.load(name) for name in registry.names())
    measuring = {one.name for one in operators if one.measures and one.tiled}
    assert measuring - DETECTORS == set(PARAMS)


#: Gives tiles of uneven sizes.
CUT = Grid(3, 4)


def measured(text: str, image: Image, plan: Size | Grid = CUT) -> Any:
    """Return the facts; assert that tiles give the same."""
    assert_tiled_equals_whole(text, image, plan)
    return pipeline.run_whole(pipeline.parse(text), image, image)


# histogram


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bins", [1, 16, 256])
def test_a_histogram_equals_opencv(dtype: str, bins: int) -> None:
    values = int(np.iinfo(dtype).max) + 1
    image = np.random.default_rng(1).integers(0, values, (70, 90, 3)).astype(dtype)
    facts = measured(f"histogram bins={bins}", image)
    assert facts["values"] * facts["bins"] == values
    for channel, counts in enumerate(facts["channels"]):
        theirs = cv2.calcHist([image], [channel], None, [bins], [0, values])
        assert counts == theirs.ravel().astype(int).tolist()


# stats


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_statistics_equal_opencv_to_twelve_digits(dtype: str) -> None:
    image = np.random.default_rng(2).normal(40, 30, (70, 90, 3)).astype(dtype)
    facts = measured("stats", image)
    means, stds = cv2.meanStdDev(image)
    assert facts["pixels"] == 70 * 90
    for index, channel in enumerate(facts["channels"]):
        assert channel["mean"] == pytest.approx(means[index, 0], rel=1e-12)
        assert channel["std"] == pytest.approx(stds[index, 0], rel=1e-12)
        low, high, *_ = cv2.minMaxLoc(np.ascontiguousarray(image[..., index]))
        assert (channel["min"], channel["max"]) == (low, high)


def test_float_sums_are_exact_beyond_float64() -> None:
    image = np.array([[1e30, 1.0, -1e30, 3e-45]], np.float32)
    facts = measured("stats", image, Size(1, 1))
    exact = (1 + float(np.float32(3e-45))) / 4
    assert facts["channels"][0]["mean"] == exact == 0.25


@SETTINGS
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_float_sums_equal_those_of_fractions(values: list[float]) -> None:
    (channel,) = measured("stats", np.array([values], np.float32), Size(1, 3))["channels"]
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    assert channel["mean"] == float(mean)
    assert channel["std"] == math.sqrt(sum((one - mean) ** 2 for one in exact) / len(exact))


def test_the_largest_numbers_do_not_overflow() -> None:
    for dtype in ("int32", "float32"):
        limits = np.iinfo(dtype) if dtype == "int32" else np.finfo(dtype)
        image = np.array([[limits.min, limits.max] * 500] * 40, dtype)
        (channel,) = measured("stats", image)["channels"]
        assert channel["std"] == pytest.approx(float(limits.max), rel=1e-9)


def test_an_image_of_one_value_has_no_deviation() -> None:
    image = np.full((31, 57), 0.1, np.float32)
    value = float(np.float32(0.1))
    assert measured("stats", image)["channels"] == [
        {"min": value, "max": value, "mean": value, "std": 0.0}
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_statistics_of_nan_and_infinity_are_refused(value: float) -> None:
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = value
    for work in (pipeline.run_whole, lambda chain, image, _: tiled(chain, image, Grid(2, 2))):
        with pytest.raises(OperatorError, match="stats: the image holds values from"):
            work(pipeline.parse("stats"), image, image)


# Parts that are received.

TILES = cut((40, 50), Size(20, 25))


def facts_from_parts(name: str, part: Part, spec: Spec) -> Any:
    """Return the facts of an image whose tiles all send this part."""
    operator: Any = registry.build(name, {})
    arrived = decode_part(operator, encode_part(part))
    return operator.gather([(tile, arrived) for tile in TILES], spec)


def counts(*values: int) -> Counts:
    return Counts(pack(np.array(values, np.int64)))


@pytest.mark.parametrize(
    "part",
    [
        counts(),
        counts(500),
        counts(*[0] * 255, 499),
        counts(*[0] * 255, 501),
        counts(*[2] * 256),
        counts(*[2**62] * 256),
        Counts((b"\xff", b"", b"", b"")),
    ],
)
def test_impossible_counts_are_refused(part: Counts) -> None:
    with pytest.raises(WireError):
        facts_from_parts("histogram", part, Spec(40, 50))
    whole = facts_from_parts("histogram", counts(*[0] * 255, 500), Spec(40, 50))
    assert whole["channels"][0][255] == 2000


def moments(low: float, high: float, total: int, squares: int) -> Moments:
    signed = [number.to_bytes(90, "big", signed=True) for number in (total, squares)]
    return Moments([Sums(low, high, *signed)])


@pytest.mark.parametrize(
    ("part", "dtype"),
    [
        (Moments([]), "uint8"),
        (moments(5, 4, 2000, 9000), "uint8"),
        (moments(0, 256, 2000, 9000), "uint8"),
        (moments(-1, 255, 2000, 9000), "uint8"),
        (moments(0.0, 1.0, 2000, 9000), "uint8"),
        (moments(0, 255, 2000, 7999), "uint8"),
        (moments(0, 255, 2**600, 2**700), "uint8"),
        (moments(0, 255, 2000, 2**700), "uint8"),
        (moments(0, 1, 0, 0), "float32"),
        (moments(float("nan"), 1.0, 0, 0), "float32"),
        (moments(0.0, float("inf"), 0, 0), "float32"),
        (moments(0.0, 1e300, 0, 0), "float32"),
    ],
)
def test_impossible_sums_are_refused(part: Moments, dtype: str) -> None:
    with pytest.raises(WireError, match="stats: tile 0"):
        facts_from_parts("stats", part, Spec(40, 50, 1, dtype))


# contours and lines: whole, on the gateway

SHAPES: Image = np.zeros((120, 160), np.uint8)
cv2.rectangle(SHAPES, (10, 10), (70, 90), 255, -1)
cv2.rectangle(SHAPES, (30, 30), (50, 60), 0, -1)
cv2.circle(SHAPES, (120, 60), 25, 255, -1)
cv2.line(SHAPES, (5, 110), (155, 110), 255, 1)


@pytest.mark.parametrize("mode", ["external", "list", "tree"])
@pytest.mark.parametrize("method", ["simple", "all", "tc89"])
def test_contours_equal_opencv(mode: str, method: str) -> None:
    facts = measured(f"contours mode={mode} method={method}", SHAPES)
    codes = {"external": 0, "list": 1, "tree": 3}, {"simple": 2, "all": 1, "tc89": 3}
    theirs, tree = cv2.findContours(SHAPES, codes[0][mode], codes[1][method])
    assert facts["count"] == len(facts["contours"]) == len(theirs)
    for one, contour, place in zip(facts["contours"], theirs, tree[0], strict=True):
        assert one["points"] == contour.reshape(-1, 2).tolist()
        assert one["parent"] == (place[3] + 1 if mode == "tree" else 0)
        assert one["area"] == cv2.contourArea(contour)
        assert one["perimeter"] == cv2.arcLength(contour, closed=True)
        box = one["left"], one["top"], one["width"], one["height"]
        assert box == cv2.boundingRect(contour)


def test_the_smallest_contours_are_left_out_first() -> None:
    facts = measured("contours min_area=1 most=1", SHAPES)
    assert (facts["count"], facts["smaller"], facts["left_out"]) == (2, 1, 1)
    (one,) = facts["contours"]
    assert (one["left"], one["top"], one["width"], one["height"]) == (10, 10, 61, 81)


def test_fewer_points_stay_within_epsilon() -> None:
    every = measured("contours", SHAPES)["contours"]
    fewer = measured("contours epsilon=1.5", SHAPES)["contours"]
    assert sum(len(one["points"]) for one in fewer) < sum(len(one["points"]) for one in every) / 2
    outlines = [np.array(one["points"]) for one in fewer]
    for one, outline in zip(every, outlines, strict=True):
        far = [abs(cv2.pointPolygonTest(outline, point, True)) for point in one["points"]]
        assert max(far) <= 1.5


def test_contours_without_points_are_short() -> None:
    assert "points" not in measured("contours points=false", SHAPES)["contours"][0]


def test_contours_and_lines_after_tiled_operators_equal_the_whole() -> None:
    image = np.random.default_rng(7).integers(0, 256, (90, 121, 3), dtype=np.uint8)
    for last in ("contours", "lines votes=20 length=9", "lines ends=false votes=30"):
        facts = measured(f"gray | gaussian ksize=7 | canny low=20 high=60 | {last}", image)
        assert facts["count"] > 0


def test_segments_equal_opencv_with_the_longest_first() -> None:
    lines = measured("lines votes=40 length=30 gap=3", SHAPES)["lines"]
    theirs: Any = cv2.HoughLinesP(SHAPES, 1, np.pi / 180, 40, minLineLength=30, maxLineGap=3)
    ends = sorted([one["x1"], one["y1"], one["x2"], one["y2"]] for one in lines)
    assert ends == sorted(theirs.reshape(-1, 4).tolist())
    lengths = [one["length"] for one in lines]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] >= 150


def test_infinite_lines_equal_opencv_with_the_most_votes_first() -> None:
    image = np.zeros((120, 160), np.uint8)
    cv2.line(image, (5, 110), (155, 110), 255, 1)
    (line,) = measured("lines ends=false votes=140", image)["lines"]
    assert line == {"rho": 110.0, "theta": 90.0, "votes": 151}
    many = measured("lines ends=false votes=30 most=2", SHAPES)
    assert [many["left_out"] + 2, len(many["lines"])] == [many["count"], 2]


@pytest.mark.parametrize("text", ["contours", "lines", "lines ends=false", "components"])
def test_an_empty_image_gives_no_facts(text: str) -> None:
    facts = measured(text, np.zeros((20, 30), np.uint8))
    assert facts["count"] == facts["left_out"] == 0
    assert [] in facts.values()


# All measuring operators.

ALL = [
    "components",
    "components connectivity=4 most=1",
    "contours",
    "contours points=false",
    "histogram",
    "histogram bins=1",
    "lines votes=1 length=0",
    "lines ends=false votes=1",
    "stats",
]


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (120, 160)])
def test_facts_become_json_and_a_drawing_of_the_measured_size(
    text: str, size: tuple[int, int]
) -> None:
    image = np.ascontiguousarray(SHAPES[-size[0] - 10 :, : size[1]][: size[0]])
    facts = measured(text, image, Size(*size))
    assert msgspec.json.decode(as_json(facts)) == facts
    operator: Any = pipeline.parse(text)[0]
    picture = operator.draw(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), facts)
    assert Spec.of(picture) == Spec(image.shape[0], image.shape[1], 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("histogram bins=3", "bins=3: expected a power of two from 1 to 1024"),
        ("histogram bins=2048", "bins=2048: expected a power of two"),
        ("contours mode=all", "mode=all: expected external, list, tree"),
        ("contours method=none", "method=none: expected all, simple, tc89"),
        ("contours epsilon=-1", "epsilon=-1: expected 0 to 1000 pixels"),
        ("contours min_area=-1", "min_area=-1: expected 0 to 1e9 square pixels"),
        ("contours most=0", "most=0: expected 1 to 100000"),
        ("lines votes=0", "votes=0: expected 1 to 1000000"),
        ("lines length=-1", "length=-1: expected 0 to 100000 pixels"),
        ("lines gap=-1", "gap=-1: expected 0 to 10000 pixels"),
        ("lines rho=0", "rho=0: expected 0.5 to 100 pixels"),
        ("lines theta=0", "theta=0: expected 0.25 to 90 degrees"),
        ("lines most=0", "most=0: expected 1 to 100000"),
    ],
)
def test_a_parameter_out_of_range_is_named(text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        pipeline.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("components", Spec(5, 5, 3), "put 'gray' before it"),
        ("components", Spec(5, 5, 1, "uint16"), "put 'to8bit' before it"),
        ("contours", Spec(5, 5, 3), "put 'gray' before it"),
        ("lines", Spec(5, 5, 1, "float32"), "put 'to8bit' before it"),
        ("histogram", Spec(5, 5, 1, "float32"), "histogram takes uint8 or uint16"),
        ("histogram bins=512", Spec(5, 5), "the dtype has only 256 values"),
        ("stats", Spec(5, 5, 1, "float64"), "stats takes uint8 or"),
    ],
)
def test_an_image_that_cannot_be_measured_is_refused(text: str, spec: Spec, message: str) -> None:
    with pytest.raises(OperatorError) as caught:
        pipeline.parse(text)[0].output(spec)
    assert message in str(caught.value)
