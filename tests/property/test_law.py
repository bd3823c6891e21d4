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
from fogmqtt.images.compare import difference
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators import catalog, pipeline
from fogmqtt.operators.base import Operator
from fogmqtt.operators.colour import Gray
from fogmqtt.operators.tone import To8Bit
from tests.tiling import tiled

LAW = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

odd = st.integers(1, 12).map(lambda half: 2 * half + 1)
bounds = st.floats(-50, 1500)
kernels = {
    "ksize": st.integers(1, 9),
    "shape": st.sampled_from(["rect", "ellipse", "cross"]),
    "iterations": st.integers(1, 3),
    "element": st.sampled_from(["", "", "1", "0110", "010/111/011", "1/0/0/1/1", "00001/10000"]),
}
slopes = {"ksize": st.sampled_from([1, 3, 5, 7]), "absolute": st.booleans()}
first_slopes = st.sampled_from([{}, {"dx": 0, "dy": 1}, {"dx": 1, "dy": 0, "absolute": False}])
eighths = st.integers(1, 64).map(lambda count: count / 8)
binary = {"max": st.floats(0, 65535), "inverse": st.booleans()}
halves = st.integers(0, 15)

Strategies = dict[str, st.SearchStrategy[Any]]

#: Parameters of every tiled operator; one that is missing here fails the last test below.
PARAMS: dict[str, Strategies | st.SearchStrategy[dict[str, Any]]] = {
    "adaptive": {
        "method": st.sampled_from(["mean", "gaussian"]),
        "block": odd,
        "c": st.floats(-255, 255) | st.integers(-4, 4).map(float),
        "max": st.floats(0, 255),
        "inverse": st.booleans(),
    },
    "adjust": {"contrast": st.floats(0, 10), "brightness": st.floats(-255, 255)},
    "autocanny": {
        "sigma": st.floats(0, 1),
        "aperture": st.sampled_from([3, 5, 7]),
        "l2": st.booleans(),
    },
    "autolevels": {"clip": st.floats(0, 49), "each": st.booleans()},
    "bilateral": {
        "d": st.integers(0, 9),
        "color": st.floats(0.1, 300),
        "space": st.floats(0.1, 3),
    },
    "blackhat": kernels,
    "blur": {"ksize": odd},
    "canny": {
        "low": bounds,
        "high": bounds,
        "aperture": st.sampled_from([3, 5, 7]),
        "l2": st.booleans(),
    },
    "channel": {"which": st.sampled_from(["0", "1", "2", "red", "hue", "value"])},
    "clahe": {
        "clip": st.floats(0, 40),
        "columns": st.integers(1, 9),
        "rows": st.integers(1, 9),
    },
    "close": kernels,
    "denoise": {
        "h": st.floats(0.5, 60),
        "color": st.floats(0.5, 60),
        "template": st.sampled_from([1, 3, 5, 7]),
        "search": st.sampled_from([1, 3, 5, 9]),
    },
    "dilate": kernels,
    "equalize": {},
    "erode": kernels,
    "gamma": {"gamma": st.floats(0.05, 20)},
    "gaussian": (
        st.builds(lambda half: {"ksize": 2 * half + 1}, halves)
        | st.builds(lambda sigma: {"ksize": 0, "sigma": sigma}, st.floats(0.2, 4))
    ),
    "gradient": kernels,
    "gray": {},
    "hsv": {"back": st.booleans(), "full": st.booleans()},
    "invert": {},
    "kernel": {
        "weights": st.sampled_from([1, 3, 5, 7]).flatmap(
            lambda side: st.lists(
                st.integers(-5, 5).map(str), min_size=side**2, max_size=side**2
            ).map(",".join)
        ),
        "divisor": st.sampled_from([1, 2, 16, 256]),
        "offset": st.sampled_from([0, 0, 3, -100]),
    },
    "lab": {"back": st.booleans()},
    "laplacian": slopes,
    "median": {"ksize": odd},
    "normalize": {"low": st.floats(0, 100), "high": st.floats(101, 400) | st.just(0.0)},
    "open": kernels,
    "otsu": binary,
    "prewitt": first_slopes,
    "scharr": first_slopes,
    "sharpen": {"amount": eighths},
    "sobel": st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 2)]).flatmap(
        lambda order: st.fixed_dictionaries(
            {"dx": st.just(order[0]), "dy": st.just(order[1])}, optional=slopes
        )
    ),
    "threshold": {"value": st.floats(-10, 65536), **binary},
    "to8bit": {},
    "tofloat": {},
    "tophat": kernels,
    "triangle": binary,
    "unsharp": {"ksize": halves.map(lambda half: 2 * half + 1), "amount": eighths},
    "whitebalance": {},
}


@st.composite
def operators(draw: st.DrawFn, name: str) -> Operator:
    params = PARAMS[name]
    optional = st.fixed_dictionaries({}, optional=params) if isinstance(params, dict) else params
    return catalog.build(name, draw(optional))


#: Float operators are exact by tiles that begin and end at multiples of 64 pixels: images must
#: be wider than that to show it.
sides = st.integers(1, 70) | st.integers(1, 70) | st.integers(65, 240)


@st.composite
def images(draw: st.DrawFn, dtypes: tuple[str, ...] = ("uint8", "uint16", "float32")) -> Image:
    height, width = draw(sides), draw(sides)
    dtype = draw(st.sampled_from(dtypes))
    channels = draw(st.sampled_from([1, 3]))
    shape = (height, width) if channels == 1 else (height, width, channels)
    most = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    match draw(st.sampled_from(["noise", "smooth", "steps", "constant"])):
        case "constant":
            values = np.full(shape, rng.random())
        case "smooth":
            values = cv2.GaussianBlur(rng.random(shape), (0, 0), rng.uniform(0.7, 4))
            values = (values - values.min()) / (np.ptp(values) or 1)
        case "steps":
            values = rng.integers(0, 4, shape) / 3
        case _:
            values = rng.random(shape)
    return (values * most).astype(dtype)


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
    """The image, or its 8-bit, gray or colour version where the chain does not take it."""
    eight = To8Bit().process(image)
    several = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    candidates = (
        image,
        eight,
        Gray().process(image),
        Gray().process(eight),
        several,
        To8Bit().process(several),
    )
    return next(one for one in candidates if takes(chain, one))


def assert_law(chain: tuple[Operator, ...], image: Image, plan: Size | Grid) -> None:
    before = image.copy()
    whole = pipeline.whole(chain, image, image)
    got = tiled(chain, image, plan)
    assert got.dtype == whole.dtype
    differ = difference(got, whole)
    assert differ.pixels == 0, f"{pipeline.written(chain)} on {Spec.of(image)} by {plan}: {differ}"
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
@given(image=images(("uint8", "uint16")), rows=st.integers(1, 70))
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
