"""The law of what measures: gathered from tiles equals measured at once, and is OpenCV's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid, Size
from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators import catalog, pipeline
from fogmqtt.operators.measuring import differing
from tests.drawn import images, plans
from tests.tiling import tiled

LAW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

#: Parameters of every operator that measures tile by tile and is tried here.
PARAMS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "components": {
        "connectivity": st.sampled_from([4, 8]),
        "min_area": st.integers(1, 12),
        "most": st.sampled_from([1, 5, 1000, 100_000]),
    },
    "histogram": {"bins": st.integers(0, 8).map(lambda power: 2**power)},
    "stats": {},
}
#: These look through windows, and are tried with pictures of their own.
ELSEWHERE = {"codes", "dnn"}


def assert_law(text: str, image: Image, plan: Size | Grid) -> None:
    chain = pipeline.parse(text)
    before = image.copy()
    whole = pipeline.whole(chain, image, image)
    got = tiled(chain, image, plan)
    assert differing(got, whole)[0] == 0, f"{text} on {Spec.of(image)} by {plan}"
    assert np.array_equal(image, before), "the image that came in was changed"


@pytest.mark.parametrize("name", sorted(PARAMS))
@LAW
@given(data=st.data())
def test_facts_gathered_from_tiles_equal_those_of_the_whole(name: str, data: st.DataObject) -> None:
    operator = catalog.build(name, data.draw(st.fixed_dictionaries({}, optional=PARAMS[name])))
    image = data.draw(images())
    try:
        operator.output(Spec.of(image))
    except OperatorError:
        gray = image if image.ndim == 2 else image[..., 0]
        image = (gray > gray.mean()).astype(np.uint8) * 255
    assert_law(str(operator), image, data.draw(plans(image)))


def test_every_operator_that_measures_tiles_stands_under_the_law() -> None:
    operators = (catalog.load(name) for name in catalog.names())
    measuring = {one.name for one in operators if one.measures and one.tiled}
    assert measuring - ELSEWHERE == set(PARAMS)


#: Uneven, and no multiple of anything.
CUT = Grid(3, 4)


def measured(text: str, image: Image, plan: Size | Grid = CUT) -> Any:
    """The facts, which the tiles agree on."""
    assert_law(text, image, plan)
    return pipeline.whole(pipeline.parse(text), image, image)


# histogram


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bins", [1, 16, 256])
def test_a_histogram_is_opencvs(dtype: str, bins: int) -> None:
    values = int(np.iinfo(dtype).max) + 1
    image = np.random.default_rng(1).integers(0, values, (70, 90, 3)).astype(dtype)
    facts = measured(f"histogram bins={bins}", image)
    assert facts["values"] * facts["bins"] == values
    for channel, counts in enumerate(facts["channels"]):
        theirs = cv2.calcHist([image], [channel], None, [bins], [0, values])
        assert counts == theirs.ravel().astype(int).tolist()


# stats


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_statistics_are_opencvs_to_twelve_digits(dtype: str) -> None:
    image = np.random.default_rng(2).normal(40, 30, (70, 90, 3)).astype(dtype)
    facts = measured("stats", image)
    means, stds = cv2.meanStdDev(image)
    assert facts["pixels"] == 70 * 90
    for index, channel in enumerate(facts["channels"]):
        assert channel["mean"] == pytest.approx(means[index, 0], rel=1e-12)
        assert channel["std"] == pytest.approx(stds[index, 0], rel=1e-12)
        low, high, *_ = cv2.minMaxLoc(np.ascontiguousarray(image[..., index]))
        assert (channel["min"], channel["max"]) == (low, high)


def test_float_sums_are_exact_where_float64_would_lose_them() -> None:
    image = np.array([[1e30, 1.0, -1e30, 3e-45]], np.float32)
    facts = measured("stats", image, Size(1, 1))
    exact = (1 + float(np.float32(3e-45))) / 4
    assert facts["channels"][0]["mean"] == exact == 0.25


def test_the_largest_numbers_overflow_nothing() -> None:
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
def test_statistics_of_what_is_no_number_are_refused(value: float) -> None:
    image = np.zeros((9, 9), np.float32)
    image[4, 4] = value
    for work in (pipeline.whole, lambda chain, image, _: tiled(chain, image, Grid(2, 2))):
        with pytest.raises(OperatorError, match="stats: the image holds values from"):
            work(pipeline.parse("stats"), image, image)
