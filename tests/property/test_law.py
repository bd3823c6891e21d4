"""The law of all operators: tiled equals whole, bit for bit, and the whole is OpenCV's."""

from __future__ import annotations

from collections.abc import Callable
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
from fogmqtt.operators.base import Operator
from tests.tiling import tiled

LAW = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])

odd = st.integers(1, 12).map(lambda half: 2 * half + 1)
bounds = st.floats(-50, 1500)
kernels = {
    "ksize": st.integers(1, 9),
    "shape": st.sampled_from(["rect", "ellipse", "cross"]),
    "iterations": st.integers(1, 3),
}

#: Parameters of every tiled operator; one that is missing here fails the last test below.
PARAMS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "gray": {},
    "invert": {},
    "to8bit": {},
    "threshold": {
        "value": st.floats(-10, 65536),
        "max": st.floats(0, 65535),
        "inverse": st.booleans(),
    },
    "gaussian": {"ksize": st.integers(0, 15).map(lambda half: 2 * half + 1)},
    "blur": {"ksize": odd},
    "median": {"ksize": odd},
    "sobel": {
        "dx": st.integers(0, 2),
        "dy": st.integers(0, 2),
        "ksize": st.sampled_from([1, 3, 5, 7]),
        "absolute": st.booleans(),
    },
    "dilate": kernels,
    "erode": kernels,
    "canny": {
        "low": bounds,
        "high": bounds,
        "aperture": st.sampled_from([3, 5, 7]),
        "l2": st.booleans(),
    },
}


@st.composite
def operators(draw: st.DrawFn, name: str) -> Operator:
    params = draw(st.fixed_dictionaries({}, optional=PARAMS[name]))
    if name == "sobel" and params.get("dx", 1) + params.get("dy", 0) == 0:
        params["dy"] = 1
    if name == "gaussian" and draw(st.booleans()):
        params = {"ksize": 0, "sigma": draw(st.floats(0.2, 4))}
    return catalog.build(name, params)


@st.composite
def images(draw: st.DrawFn) -> Image:
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    channels, dtype = draw(st.sampled_from([1, 3])), draw(st.sampled_from(["uint8", "uint16"]))
    shape = (height, width) if channels == 1 else (height, width, channels)
    most = int(np.iinfo(dtype).max)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    match draw(st.sampled_from(["noise", "smooth", "constant"])):
        case "constant":
            return np.full(shape, rng.integers(most + 1), dtype)
        case "smooth":
            image = cv2.GaussianBlur(rng.random(shape), (0, 0), rng.uniform(0.7, 4))
            return (cv2.normalize(image, None, 0, most, cv2.NORM_MINMAX)).astype(dtype)
    return rng.integers(0, most + 1, shape, dtype)


@st.composite
def plans(draw: st.DrawFn, image: Image) -> Size | Grid:
    height, width = image.shape[:2]
    rows, columns = draw(st.integers(1, min(height, 8))), draw(st.integers(1, min(width, 8)))
    if draw(st.booleans()):
        return Grid(rows, columns)
    return Size(-(-height // rows), -(-width // columns))


def takes(chain: tuple[Operator, ...], image: Image) -> bool:
    try:
        pipeline.stages(chain, Spec.of(image))
    except OperatorError:
        return False
    return True


def suited(chain: tuple[Operator, ...], image: Image) -> Image:
    """The image, or its 8-bit or gray version where the chain does not take it as it is."""
    if not takes(chain, image):
        image = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
    return image if takes(chain, image) else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def assert_law(chain: tuple[Operator, ...], image: Image, plan: Size | Grid) -> None:
    before = image.copy()
    whole = pipeline.whole(chain, image, image)
    got = tiled(chain, image, plan)
    assert got.dtype == whole.dtype
    assert np.array_equal(got, whole), f"{pipeline.written(chain)} on {Spec.of(image)} by {plan}"
    assert np.array_equal(image, before), "the image that came in was changed"


@pytest.mark.parametrize("name", sorted(PARAMS))
@LAW
@given(data=st.data())
def test_tiles_of_one_operator_equal_the_whole(name: str, data: st.DataObject) -> None:
    chain = (data.draw(operators(name)),)
    image = suited(chain, data.draw(images()))
    assert_law(chain, image, data.draw(plans(image)))


@LAW
@given(data=st.data())
def test_tiles_of_fused_pipelines_equal_the_whole(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(PARAMS)), min_size=2, max_size=4))
    chain = tuple(data.draw(operators(name)) for name in names)
    image = data.draw(images())
    if not takes(chain, image):
        chain = tuple(catalog.build(name, {}) for name in ("to8bit", "gray")) + chain
    if takes(chain, image):
        assert_law(chain, image, data.draw(plans(image)))


@settings(deadline=None, max_examples=30)
@given(image=images(), rows=st.integers(1, 70))
def test_a_pipeline_with_a_step_of_the_gateway_equals_the_whole(image: Image, rows: int) -> None:
    text = "to8bit | gray | gaussian | canny low=5 high=40 | dilate | overlay colour=green"
    assert_law(pipeline.parse(text), image, Grid(min(rows, image.shape[0]), 1))


def _slope(image: Image) -> Image:
    return cv2.convertScaleAbs(cv2.Sobel(image, cv2.CV_16S, 1, 1, ksize=5))


def _ellipse(side: int) -> Image:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("gray", lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)),
        ("invert", lambda image: 255 - image),
        ("to8bit", lambda image: image),
        ("gaussian ksize=7 sigma=1.5", lambda image: cv2.GaussianBlur(image, (7, 7), 1.5)),
        ("gaussian ksize=0 sigma=2", lambda image: cv2.GaussianBlur(image, (0, 0), 2)),
        ("blur ksize=9", lambda image: cv2.blur(image, (9, 9))),
        ("median ksize=9", lambda image: cv2.medianBlur(image, 9)),
        ("sobel dx=1 dy=1 ksize=5", _slope),
        ("sobel absolute=false", lambda image: cv2.Sobel(image, cv2.CV_16S, 1, 0)),
        ("threshold value=99.5", lambda image: cv2.threshold(image, 99.5, 255, 0)[1]),
        ("dilate ksize=5 shape=ellipse", lambda image: cv2.dilate(image, _ellipse(5))),
        ("erode ksize=4 iterations=2", lambda i: cv2.erode(i, np.ones((4, 4)), iterations=2)),
        ("canny low=200 high=50", lambda image: cv2.Canny(image, 200, 50)),
        ("gray|canny", lambda i: cv2.Canny(cv2.cvtColor(i, cv2.COLOR_BGR2GRAY), 50, 150)),
    ],
)
def test_the_whole_is_what_opencv_says(text: str, plain: Callable[[Image], Image]) -> None:
    image = np.random.default_rng(5).integers(0, 256, (83, 131, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (5, 5), 0)
    chain = pipeline.parse(text)
    assert np.array_equal(pipeline.whole(chain, image, image), plain(image))
    assert np.array_equal(tiled(chain, image, Grid(4, 3)), plain(image))


def test_every_tiled_operator_stands_under_the_law() -> None:
    built_in = [name for name in catalog.names() if catalog.load(name).tiled]
    assert built_in == sorted(PARAMS)


@pytest.mark.parametrize(
    "text", ["gaussian ksize=7 sigma=3", "blur ksize=5", "median", "sobel", "dilate", "erode"]
)
def test_a_halo_one_pixel_smaller_would_be_noticed(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = pipeline.parse(text)
    less = chain[0].halo - 1
    monkeypatch.setattr(type(chain[0]), "halo", property(lambda self: less))
    image = np.random.default_rng(5).integers(0, 256, (64, 64), dtype=np.uint8)
    assert not np.array_equal(tiled(chain, image, Grid(4, 4)), pipeline.whole(chain, image, image))
