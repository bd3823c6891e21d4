"""For all operators tiled equals whole, bit for bit, and the whole equals OpenCV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid, Size
from fogmqtt.errors import OperatorError
from fogmqtt.images.compare import difference
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.colour.spaces import Gray
from fogmqtt.operators.colour.tone import To8Bit
from tests.drawn import PARAMS, images, operators, plans
from tests.tiling import tiled

SETTINGS = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


#: Operators that are too slow for large images.
SLOW = {"bilateral", "denoise"}


def takes(chain: tuple[Operator, ...], image: Image) -> bool:
    try:
        pipeline.split_stages(chain, Spec.of(image))
    except OperatorError:
        return False
    return True


def adapted(chain: tuple[Operator, ...], image: Image) -> Image:
    """Return the image, or its 8-bit, gray or colour version if the chain does not take it."""
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiles as small as these cost less without threads, and devices have fewer than a gateway."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def assert_tiled_equals_whole(chain: tuple[Operator, ...], image: Image, plan: Size | Grid) -> None:
    before = image.copy()
    whole = pipeline.run_whole(chain, image, image)
    with one_thread():
        got = tiled(chain, image, plan)
    assert got.dtype == whole.dtype
    differ = difference(got, whole)
    assert differ.pixels == 0, (
        f"{pipeline.format_pipeline(chain)} on {Spec.of(image)} by {plan}: {differ}"
    )
    assert np.array_equal(image, before), "the image that came in was changed"


@pytest.mark.parametrize("name", sorted(PARAMS))
@SETTINGS
@given(data=st.data())
def test_tiles_of_one_operator_equal_the_whole(name: str, data: st.DataObject) -> None:
    chain = (data.draw(operators(name)),)
    image = adapted(chain, data.draw(images()))
    if name in SLOW:
        image = image[:90, :140].copy()
    assert_tiled_equals_whole(chain, image, data.draw(plans(image)))


@SETTINGS
@given(data=st.data())
def test_tiles_of_fused_pipelines_equal_the_whole(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(PARAMS)), min_size=2, max_size=4))
    chain = tuple(data.draw(operators(name)) for name in names)
    image = data.draw(images())
    if not takes(chain, image):
        chain = tuple(registry.build(name, {}) for name in ("to8bit", "gray")) + chain
    if takes(chain, image):
        assert_tiled_equals_whole(chain, image, data.draw(plans(image)))


@settings(deadline=None, max_examples=30)
@given(image=images(("uint8", "uint16")), rows=st.integers(1, 70))
def test_a_pipeline_with_a_stage_on_the_gateway_equals_the_whole(image: Image, rows: int) -> None:
    text = "to8bit | gray | gaussian | canny low=5 high=40 | dilate | overlay colour=green"
    assert_tiled_equals_whole(pipeline.parse(text), image, Grid(min(rows, image.shape[0]), 1))


def _derivative(image: Image) -> Image:
    return cv2.convertScaleAbs(cv2.Sobel(image, cv2.CV_16S, 1, 1, ksize=5))


_SQUARE = np.ones((3, 3), np.uint8)
_SHARP: Image = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)
_EIGHTHS: Image = np.full((3, 3), 1 / 8, np.float32)
_PREWITT: Image = np.array([[-1, 0, 1]] * 3, np.float32)


def _gray(image: Image) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def _smooth(image: Image) -> Image:
    return cv2.GaussianBlur(image, (5, 5), 0)


def _emboss(image: Image, offset: int) -> Image:
    kernel: Image = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    return cv2.filter2D(image, -1, kernel, delta=offset)


def _auto_canny(image: Image, sigma: float) -> Image:
    median = np.median(image)
    low, high = int(max(0, (1 - sigma) * median)), int(min(255, (1 + sigma) * median))
    return cv2.Canny(image, low, high)


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
        ("sobel dx=1 dy=1 ksize=5", _derivative),
        ("sobel absolute=false", lambda image: cv2.Sobel(image, cv2.CV_16S, 1, 0)),
        ("threshold value=99.5", lambda image: cv2.threshold(image, 99.5, 255, 0)[1]),
        ("dilate ksize=5 shape=ellipse", lambda image: cv2.dilate(image, _ellipse(5))),
        ("erode ksize=4 iterations=2", lambda i: cv2.erode(i, np.ones((4, 4)), iterations=2)),
        ("hsv", lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2HSV)),
        ("hsv full=true", lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL)),
        ("hsv back=true", lambda image: cv2.cvtColor(image, cv2.COLOR_HSV2BGR)),
        ("lab", lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2Lab)),
        ("lab back=true", lambda image: cv2.cvtColor(image, cv2.COLOR_Lab2BGR)),
        ("channel which=red", lambda image: image[..., 2]),
        ("tofloat|gaussian", lambda i: cv2.GaussianBlur(i / np.float32(255), (5, 5), 0)),
        ("bilateral d=5", lambda image: cv2.bilateralFilter(image, 5, 75, 75)),
        ("denoise search=9", lambda i: cv2.fastNlMeansDenoisingColored(i, None, 3, 3, 7, 9)),
        ("gray|denoise search=9", lambda i: cv2.fastNlMeansDenoising(_gray(i), None, 3, 7, 9)),
        ("sharpen", lambda image: cv2.filter2D(image, -1, _SHARP)),
        ("kernel", lambda image: cv2.filter2D(image, -1, _SHARP)),
        ("kernel weights=-2,-1,0,-1,1,1,0,1,2 offset=9", lambda image: _emboss(image, 9)),
        ("kernel weights=1,1,1,1,1,1,1,1,1 divisor=8", lambda i: cv2.filter2D(i, -1, _EIGHTHS)),
        ("unsharp amount=0.5", lambda i: cv2.addWeighted(i, 1.5, _smooth(i), -0.5, 0)),
        ("scharr dx=0 dy=1", lambda i: cv2.convertScaleAbs(cv2.Scharr(i, cv2.CV_16S, 0, 1))),
        ("scharr absolute=false", lambda image: cv2.Scharr(image, cv2.CV_16S, 1, 0)),
        ("prewitt", lambda i: cv2.convertScaleAbs(cv2.filter2D(i, cv2.CV_16S, _PREWITT))),
        ("prewitt dx=0 dy=1", lambda i: cv2.convertScaleAbs(cv2.filter2D(i, 3, _PREWITT.T))),
        ("laplacian ksize=5", lambda i: cv2.convertScaleAbs(cv2.Laplacian(i, cv2.CV_16S, ksize=5))),
        ("open ksize=5", lambda image: cv2.morphologyEx(image, cv2.MORPH_OPEN, np.ones((5, 5)))),
        ("close", lambda image: cv2.morphologyEx(image, cv2.MORPH_CLOSE, np.ones((3, 3)))),
        ("gradient", lambda image: cv2.dilate(image, _SQUARE) - cv2.erode(image, _SQUARE)),
        ("tophat", lambda image: cv2.morphologyEx(image, cv2.MORPH_TOPHAT, _SQUARE)),
        ("blackhat", lambda image: cv2.morphologyEx(image, cv2.MORPH_BLACKHAT, _SQUARE)),
        ("dilate element=110/011", lambda i: cv2.dilate(i, np.uint8([[1, 1, 0], [0, 1, 1]]))),
        ("gray|adaptive", lambda i: cv2.adaptiveThreshold(_gray(i), 255, 0, 0, 11, 2)),
        (
            "gray|adaptive method=gaussian block=7 c=-1.5 max=9 inverse=true",
            lambda image: cv2.adaptiveThreshold(_gray(image), 9, 1, 1, 7, -1.5),
        ),
        ("gray|otsu", lambda i: cv2.threshold(_gray(i), 0, 255, cv2.THRESH_OTSU)[1]),
        ("gray|triangle max=7", lambda i: cv2.threshold(_gray(i), 0, 7, cv2.THRESH_TRIANGLE)[1]),
        ("gray|equalize", lambda image: cv2.equalizeHist(_gray(image))),
        ("gray|clahe", lambda image: cv2.createCLAHE(2, (8, 8)).apply(_gray(image))),
        (
            "normalize low=9 high=99",
            lambda image: cv2.normalize(image, None, 9, 99, cv2.NORM_MINMAX),
        ),
        ("gray|autocanny sigma=0.5", lambda image: _auto_canny(_gray(image), 0.5)),
        ("autocanny", lambda image: _auto_canny(image, 0.33)),
        ("flip", lambda image: cv2.flip(image, 1)),
        ("rotate degrees=270", lambda image: np.rot90(image)),
        ("crop left=5 top=7 width=20", lambda image: image[7:, 5:25]),
        ("canny low=200 high=50", lambda image: cv2.Canny(image, 200, 50)),
        ("gray|canny", lambda i: cv2.Canny(cv2.cvtColor(i, cv2.COLOR_BGR2GRAY), 50, 150)),
    ],
)
def test_the_whole_equals_opencv(text: str, plain: Callable[[Image], Image]) -> None:
    image = np.random.default_rng(5).integers(0, 256, (83, 131, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (5, 5), 0)
    chain = pipeline.parse(text)
    assert np.array_equal(pipeline.run_whole(chain, image, image), plain(image))
    assert np.array_equal(tiled(chain, image, Grid(4, 3)), plain(image))


def test_every_tiled_operator_is_tested_here() -> None:
    tiled = [name for name in registry.names() if registry.load(name).tiled]
    known = {name: registry.load(name) for name in tiled}
    images = [name for name, one in known.items() if not (one.measures or one.has_memory)]
    assert images == sorted(PARAMS), "a row is missing in PARAMS of tests/drawn.py"


def test_only_known_operators_are_untiled() -> None:
    whole = [name for name in registry.names() if not registry.load(name).tiled]
    assert whole == ["contours", "crop", "flip", "labels", "lines", "overlay", "resize", "rotate"]


@pytest.mark.parametrize(
    "text",
    [
        "adaptive",
        "blackhat",
        "blur ksize=5",
        "close",
        "denoise h=40 template=3 search=5",
        "dilate",
        "erode",
        "gaussian ksize=7 sigma=3",
        "gradient",
        "kernel",
        "laplacian",
        "median",
        "open",
        "prewitt",
        "scharr",
        "sharpen",
        "sobel",
        "tophat",
        "unsharp ksize=7 sigma=3",
    ],
)
def test_a_halo_one_pixel_smaller_would_be_noticed(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = pipeline.parse(text)
    less = chain[0].halo - 1
    monkeypatch.setattr(type(chain[0]), "halo", property(lambda self: less))
    image = np.random.default_rng(5).integers(0, 256, (64, 64), dtype=np.uint8)
    assert not np.array_equal(
        tiled(chain, image, Grid(4, 4)), pipeline.run_whole(chain, image, image)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gaussian_of_every_size_equals_opencv_with_the_sigma_that_it_derives(dtype: type) -> None:
    """For some sizes the operator names the sigma, so that OpenCV on ARM runs its portable code."""
    most = 1 if dtype is np.float32 else np.iinfo(dtype).max
    image = (np.random.default_rng(5).random((61, 131)) * most).astype(dtype)
    for ksize in range(1, 256, 2):
        done = registry.build("gaussian", {"ksize": ksize}).process(image)
        assert np.array_equal(done, cv2.GaussianBlur(image, (ksize, ksize), 0)), ksize


@pytest.mark.parametrize("text", ["hsv", "hsv full=true", "hsv back=true"])
def test_tiles_of_hsv_end_where_vectors_of_every_processor_do(text: str) -> None:
    (stage,) = pipeline.split_stages(pipeline.parse(text), Spec(300, 400, 3))
    assert stage.align == 64


def test_clahe_does_not_depend_on_how_opencv_rounds_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """On ARM, `cv2.CLAHE` fuses additions with multiplications."""
    image = np.random.default_rng(5).integers(0, 256, (83, 131), dtype=np.uint8)
    expected = cv2.createCLAHE(2, (8, 8)).apply(image)
    monkeypatch.delattr(cv2, "createCLAHE")
    chain = pipeline.parse("clahe")
    assert np.array_equal(pipeline.run_whole(chain, image, image), expected)
