"""The operators: what they refuse, and results that fogmqtt defines and OpenCV does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fogmqtt.core.geometry import Grid, Rect
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.pipeline import parse, run_whole
from fogmqtt.operators.support import value_counts
from fogmqtt.operators.support.value_counts import count_values
from tests.tiling import called, tiled

RNG = np.random.default_rng(7)
COLOUR: Image = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
GRAY: Image = RNG.integers(0, 256, (30, 40), dtype=np.uint8)


def build(text: str) -> Operator:
    return parse(text)[0]


def done(text: str, image: Image) -> Image:
    """Return the pipeline's result; assert that tiles give the same."""
    result = run_whole(parse(text), image, image)
    assert np.array_equal(tiled(parse(text), image, Grid(1, 1)), result)
    return result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adaptive block=4", "block=4: expected an odd number from 3 to 127"),
        ("adaptive method=median", "method=median"),
        ("adaptive c=300", "c=300: expected -255 to 255"),
        ("adaptive max=256", "max=256: expected 0 to 255"),
        ("adjust contrast=-1", "contrast=-1: expected 0 to 100"),
        ("adjust brightness=256", "brightness=256: expected -255 to 255"),
        ("autocanny sigma=1.5", "sigma=1.5: expected 0 to 1"),
        ("autocanny aperture=4", "aperture=4: expected 3, 5 or 7"),
        ("autolevels clip=50", "clip=50: expected 0 to 49 percent"),
        ("bilateral d=-1", "d=-1: expected 0 to 101 pixels"),
        ("bilateral color=0", "color=0: expected over 0, to 1000"),
        ("bilateral space=200", "space=200: expected over 0, to 100 pixels"),
        ("channel which=gren", "did you mean 'green'?, or an index from 0 to 3"),
        ("clahe clip=-1", "clip=-1: expected 0 to 1000"),
        ("clahe columns=17", "columns=17: expected 1 to 16 cells"),
        ("crop left=-1", "left=-1: expected 0 to 1000000 pixels"),
        ("denoise h=0", "h=0: expected over 0, to 1000"),
        ("denoise search=8", "search=8: expected an odd number from 1 to 61"),
        ("denoise template=23", "template=23: expected an odd number from 1 to 21"),
        ("dilate element=012", "element=012: expected rows of 0 and 1"),
        ("dilate element=01/1", "element=01/1: expected rows of 0 and 1 of one length"),
        ("dilate element=00/00", "with a 1 in them"),
        ("flip axis=x", "axis=x"),
        ("gamma gamma=0", "gamma=0: expected 0.01 to 100"),
        ("kernel weights=1,2,x", "weights=1,2,x: expected whole numbers with commas"),
        ("kernel weights=1,2", "expected 1, 9, 25 or 49 of them, not 2"),
        ("kernel divisor=3", "divisor=3: expected a power of 2 up to 65536"),
        ("kernel offset=256", "offset=256: expected -255 to 255"),
        ("laplacian ksize=2", "ksize=2: expected 1, 3, 5 or 7"),
        ("normalize low=-1", "low=-1: expected 0 to 65535"),
        ("normalize low=9 high=5", "high=5: expected over low=9, to 65535, or 0"),
        ("otsu max=-1", "max=-1: expected 0 to 65535"),
        ("rotate degrees=45", "degrees=45: expected 90, 180 or 270"),
        ("scharr dx=1 dy=1", "expected dx=1 dy=0 or dx=0 dy=1"),
        ("prewitt dx=2", "dx=2: expected 0 or 1"),
        ("sharpen amount=0.3", "amount=0.3: expected 0.125 to 8 in steps of 0.125"),
        ("unsharp amount=9", "amount=9: expected 0.125 to 8"),
        ("unsharp ksize=4", "ksize=4: expected an odd number"),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_what_is_expected(text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("adaptive", Spec(5, 5, 3), "put 'gray' before it"),
        ("autocanny", Spec(5, 5, 1, "uint16"), "put 'to8bit' before it"),
        ("bilateral", Spec(5, 5, 1, "float32"), "put 'to8bit' before it"),
        ("blur", Spec(5, 5, 1, "float32"), "blur takes uint8 or uint16"),
        ("channel which=red", Spec(5, 5), "has no channel 2, counted from 0"),
        ("clahe", Spec(5, 5, 1, "uint16"), "put 'to8bit' before it"),
        (
            "crop left=3 width=3",
            Spec(5, 5),
            "the rectangle exceeds the image, which is 5x5 gray uint8",
        ),
        ("crop top=5", Spec(5, 5), "the rectangle exceeds the image"),
        ("denoise", Spec(5, 5, 3, "uint16"), "put 'gray' before it"),
        ("hsv", Spec(5, 5), "hsv takes 3 channel(s)"),
        ("kernel weights=300", Spec(5, 5, 1, "uint16"), "sum up to 300, over 256"),
        ("lab", Spec(5, 5, 3, "uint16"), "lab takes uint8 or float32"),
        ("median ksize=7", Spec(5, 5, 1, "float32"), "float32 up to ksize=5 only"),
        ("otsu", Spec(5, 5, 3), "put 'gray' before it"),
        ("triangle", Spec(5, 5, 1, "uint16"), "put 'to8bit' before it"),
        ("whitebalance", Spec(5, 5), "whitebalance takes 3 channel(s)"),
    ],
)
def test_an_image_that_an_operator_cannot_take_is_refused(
    text: str, spec: Spec, message: str
) -> None:
    with pytest.raises(OperatorError) as caught:
        build(text).output(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "halo"),
    [
        ("adaptive block=11", 5),
        ("autocanny aperture=5", 3),
        ("bilateral d=9", 4),
        ("bilateral d=1", 1),
        ("bilateral d=0 space=3", 4),
        ("close ksize=5 iterations=2", 8),
        ("denoise template=7 search=21", 13),
        ("dilate element=11111/11111", 2),
        ("gradient ksize=5", 2),
        ("kernel weights=2", 0),
        ("kernel", 1),
        ("laplacian ksize=1", 1),
        ("open element=1/1/1/1/1", 4),
        ("prewitt", 1),
        ("unsharp ksize=0 sigma=2", 8),
        ("clahe", 0),
    ],
)
def test_a_halo_follows_from_the_parameters(text: str, halo: int) -> None:
    assert build(text).halo == halo


@pytest.mark.parametrize(
    ("text", "spec", "align"),
    [
        ("hsv", Spec(9, 9, 3), 64),
        ("hsv back=true", Spec(9, 9, 3), 64),
        ("adaptive", Spec(9, 9), 1),
        ("adaptive method=gaussian", Spec(9, 9), 64),
        ("sobel", Spec(9, 9, 1, "uint8"), 1),
        ("sobel", Spec(9, 9, 1, "uint16"), 64),
        ("dilate", Spec(9, 9, 1, "float32"), 64),
        ("bilateral", Spec(9, 9), 64),
    ],
)
def test_float_arithmetic_aligns_tiles(text: str, spec: Spec, align: int) -> None:
    assert build(text).alignment(spec) == align


IMAGING = [
    name
    for name in registry.names()
    if not (registry.load(name).measures or registry.load(name).has_memory)
]


@pytest.mark.parametrize("name", IMAGING)
def test_the_result_has_the_announced_spec(name: str) -> None:
    text = {"resize": "resize factor=0.5", "crop": "crop left=3 top=2 height=5"}.get(name, name)
    operator, tried = build(text), 0
    for dtype in ("uint8", "uint16", "float32"):
        for image in (GRAY.astype(dtype), COLOUR.astype(dtype)):
            if name == "overlay" and dtype == "float32":
                continue
            try:
                announced = operator.output(Spec.of(image))
            except OperatorError:
                continue
            tried += 1
            assert Spec.of(operator.prepare(image, image).whole(image)) == announced
    assert tried


LEARNING = [
    name
    for name in registry.names()
    if registry.load(name).begins_stage and not registry.load(name).measures
]


def test_operators_that_need_the_whole_image_are_known() -> None:
    assert LEARNING == [
        "autocanny",
        "autolevels",
        "clahe",
        "equalize",
        "normalize",
        "otsu",
        "triangle",
        "whitebalance",
    ]


@pytest.mark.parametrize("name", LEARNING)
def test_an_operator_that_was_not_prepared_raises(name: str) -> None:
    image = COLOUR if name == "whitebalance" else GRAY
    with pytest.raises(OperatorError, match=f"{name} was not prepared"):
        build(name).process(image)


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("encoding", ["binary", "base64"])
def test_learned_fields_survive_encoding(name: str, encoding: str) -> None:
    image = COLOUR if name == "whitebalance" else GRAY
    prepared = build(name).prepare(image, image).for_tile(Rect(16, 8, 16, 16), (64, 64))
    assert prepared != build(name)
    assert str(prepared) == name
    (arrived,) = called([prepared], encoding)  # type: ignore[arg-type]
    assert arrived == prepared
    assert np.array_equal(arrived.process(image), prepared.process(image))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("equalize", {"table": b"short"}),
        ("clahe", {"tables": b"short"}),
        ("clahe", {"cell": (0, 5)}),
        ("clahe", {"place": (0,)}),
        ("clahe", {"place": (0, -1)}),
        ("whitebalance", {"gains": (1.0, 2.0)}),
        ("autolevels", {"bounds": (1, 2, 3)}),
        ("normalize", {"smallest": math.nan}),
        ("otsu", {"value": "much"}),
    ],
)
def test_an_impossible_learned_value_is_refused(name: str, params: dict[str, object]) -> None:
    with pytest.raises(PipelineError, match=f"{name}: {next(iter(params))}="):
        registry.build(name, params)


def test_white_balance_makes_the_means_equal() -> None:
    image = (COLOUR * np.array([0.5, 0.6, 0.4])).astype(np.uint8)
    means = done("whitebalance", image).mean(axis=(0, 1))
    assert np.ptp(means) < 0.5
    assert np.ptp(image.mean(axis=(0, 1))) > 10


def test_white_balance_leaves_a_black_channel_black() -> None:
    image = COLOUR.copy()
    image[..., 1] = 0
    assert not done("whitebalance", image)[..., 1].any()


def test_auto_levels_stretch_to_black_and_white() -> None:
    image: Image = np.array([[50, 60, 70, 80, 150]], np.uint8)
    assert done("autolevels clip=0", image).tolist() == [[0, 26, 51, 76, 255]]
    assert done("autolevels clip=20", image).tolist() == [[0, 0, 128, 255, 255]]
    sixteen = image.astype(np.uint16) * 257
    assert done("autolevels clip=20", sixteen).tolist() == [[0, 0, 32768, 65535, 65535]]


def test_auto_levels_may_treat_each_channel_by_itself() -> None:
    image: Image = np.array([[[10, 20, 30], [20, 40, 60]]], np.uint8)
    assert done("autolevels clip=0 each=true", image).tolist() == [[[0] * 3, [255] * 3]]
    assert done("autolevels clip=0", image).tolist() == [[[0, 51, 102], [51, 153, 255]]]


@pytest.mark.parametrize("name", ["autolevels", "normalize", "equalize", "gamma"])
def test_an_image_of_one_value_keeps_its_spec(name: str) -> None:
    for dtype in ("uint8", "uint16"):
        image: Image = np.full((6, 6), 99, dtype)
        if name != "equalize" or dtype == "uint8":
            assert len(np.unique(done(name, image))) == 1


def test_normalize_spans_the_dtype_or_the_given_range() -> None:
    for dtype, most in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
        image: Image = np.array([[3, 4, 7]], dtype)
        assert done("normalize", image)[0, [0, 2]].tolist() == [0, most]
        assert done("normalize low=10 high=30", image).tolist() == [[10, 15, 30]]


def test_normalize_refuses_nan_and_infinity() -> None:
    image: Image = np.array([[1, np.inf]], np.float32)
    with pytest.raises(OperatorError, match=r"values from 1\.0 to inf"):
        build("normalize").prepare(image, image)


def test_gamma_and_adjust_are_tables() -> None:
    image: Image = np.array([[0, 64, 255]], np.uint8)
    assert done("gamma gamma=2", image).tolist() == [[0, 128, 255]]
    assert done("adjust contrast=2 brightness=-10", image).tolist() == [[0, 118, 255]]
    sixteen: Image = np.array([[0, 1000, 65535]], np.uint16)
    assert done("adjust brightness=1", sixteen).tolist() == [[257, 1257, 65535]]
    assert done("gamma gamma=1", sixteen).tolist() == sixteen.tolist()


def test_tofloat_and_to8bit_restore_the_image() -> None:
    assert np.array_equal(done("tofloat | to8bit", COLOUR), COLOUR)
    assert done("tofloat", np.array([[0, 65535]], np.uint16)).tolist() == [[0.0, 1.0]]


def test_to8bit_clips_floats_and_turns_nan_to_black() -> None:
    image: Image = np.array([[-1, 0.5, 2, np.nan, np.inf]], np.float32)
    assert build("to8bit").process(image).tolist() == [[0, 128, 255, 0, 255]]


def test_a_channel_has_an_index_and_a_name() -> None:
    for index, name in enumerate(("blue", "green", "red")):
        assert np.array_equal(done(f"channel which={name}", COLOUR), COLOUR[..., index])
        assert np.array_equal(done(f"channel which={index}", COLOUR), COLOUR[..., index])


def test_derivatives_of_16_bits_are_clipped_or_kept_in_float() -> None:
    image: Image = np.zeros((1, 6), np.uint16)
    image[0, 3:] = 60000
    assert done("sobel", image).max() == 65535
    assert done("sobel absolute=false", image).max() == 4 * 60000
    assert done("scharr absolute=false dx=1", image).dtype == np.float32


def test_an_element_of_ones_is_a_rectangle() -> None:
    assert np.array_equal(done("open element=11/11", GRAY), done("open ksize=2", GRAY))


def test_colour_images_are_equalised_by_their_luma() -> None:
    y = cv2.cvtColor(COLOUR, cv2.COLOR_BGR2YCrCb)
    y[..., 0] = cv2.equalizeHist(y[..., 0].copy())
    assert np.array_equal(done("equalize", COLOUR), cv2.cvtColor(y, cv2.COLOR_YCrCb2BGR))


def test_a_histogram_counts_more_than_float32_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_counts, "_MOST_COUNTABLE", 100)
    for image in (GRAY, GRAY.astype(np.uint16) * 257):
        values = int(np.iinfo(image.dtype).max) + 1
        assert np.array_equal(count_values(image), np.bincount(image.ravel(), minlength=values))
    red = np.bincount(COLOUR[..., 2].ravel(), minlength=256)
    assert np.array_equal(count_values(COLOUR, 2), red)


@pytest.mark.parametrize("values", [[3], [3, 4], [1, 9, 9], [0, 0, 255, 255]])
def test_auto_canny_knows_the_median(values: list[int]) -> None:
    image: Image = np.array([values], np.uint8)
    assert build("autocanny").prepare(image, image).params() == {"median": np.median(image)}


def test_flip_rotate_and_crop_move_pixels() -> None:
    assert np.array_equal(done("rotate", COLOUR), np.rot90(COLOUR, -1))
    assert np.array_equal(done("rotate degrees=180", COLOUR), done("flip axis=both", COLOUR))
    assert np.array_equal(done("flip axis=vertical", GRAY), GRAY[::-1])
    assert np.array_equal(done("crop", GRAY), GRAY)
    assert np.array_equal(done("crop left=1 top=2 width=3 height=4", COLOUR), COLOUR[2:6, 1:4])
