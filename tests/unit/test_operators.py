"""Operators: their parameters, the images that they take, and those that run untiled."""

from __future__ import annotations

import numpy as np
import pytest

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.cv import cv2, one_thread
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.pipeline import parse, run_whole
from fogmqtt.operators.edges.canny import Canny
from fogmqtt.operators.overlay import Overlay


def build(text: str) -> Operator:
    return parse(text)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaussian ksize=257", "expected an odd number from 1 to 255, or 0"),
        ("gaussian sigma=-1", "sigma=-1: expected 0 to 31 pixels"),
        ("gaussian ksize=0", "ksize=0 needs a sigma over 0"),
        ("blur ksize=4", "ksize=4: expected an odd number from 1 to 127"),
        ("median ksize=4", "ksize=4: expected an odd number from 3"),
        ("sobel dx=0", "dx and dy cannot both be 0"),
        ("sobel dx=3", "dx=3: expected 0 to 2"),
        ("sobel ksize=2", "ksize=2: expected 1, 3, 5 or 7"),
        ("threshold max=-1", "max=-1: expected 0 to 65535"),
        ("threshold value=1e9", "expected -65536 to 65536"),
        ("dilate shape=disk", "shape=disk"),
        ("erode iterations=0", "iterations=0: expected 1 to 100"),
        ("canny aperture=9", "aperture=9: expected 3, 5 or 7"),
        ("canny high=1e12", "high=1000000000000: expected -1e9 to 1e9"),
        ("resize factor=0.5 width=3", "give either a factor, or width or height"),
        ("resize factor=-1", "factor=-1: expected over 0"),
        ("resize width=2000000", "width=2000000: expected 1 to 1000000 pixels"),
        ("resize factor=2 method=cubic", "method=cubic"),
        ("overlay colour=gren", "did you mean 'green'?"),
        ("overlay opacity=2", "opacity=2: expected 0 to 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_what_is_expected(text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("gray", Spec(5, 5, 4), "gray takes 1 or 3 channel"),
        ("canny", Spec(5, 5, 1, "uint16"), "put 'to8bit' before it"),
        ("sobel", Spec(5, 5, 1, "int16"), "sobel takes uint8 or uint16 or float32"),
        ("median ksize=7", Spec(5, 5, 1, "uint16"), "uint16 up to ksize=5 only"),
        ("blur ksize=11", Spec(5, 5, 1, "uint16"), "uint16 up to ksize=9 only"),
        ("invert", Spec(5, 5, 1, "int16"), "invert takes uint8 or uint16"),
        ("overlay", Spec(5, 5, 3), "put 'gray' before it"),
        ("resize factor=100", Spec(5000, 5000), "too many"),
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
        ("gaussian ksize=7", 3),
        ("gaussian ksize=0 sigma=2", 8),
        ("blur ksize=5", 2),
        ("median ksize=9", 4),
        ("sobel ksize=1", 1),
        ("sobel ksize=7", 3),
        ("dilate ksize=5 iterations=3", 6),
        ("canny aperture=7", 4),
        ("gray", 0),
    ],
)
def test_a_halo_follows_from_the_parameters(text: str, halo: int) -> None:
    assert build(text).halo == halo


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("gray", Spec(6, 8, 1)),
        ("gaussian", Spec(6, 8, 3)),
        ("sobel absolute=false", Spec(6, 8, 3, "int16")),
        ("canny", Spec(6, 8)),
        ("resize factor=0.5", Spec(3, 4, 3)),
        ("resize factor=0.01", Spec(1, 1, 3)),
        ("resize width=4", Spec(3, 4, 3)),
        ("resize height=12", Spec(12, 16, 3)),
        ("resize width=3 height=2", Spec(2, 3, 3)),
    ],
)
def test_the_result_has_the_announced_spec(text: str, spec: Spec) -> None:
    image: Image = np.zeros((6, 8, 3), np.uint8)
    assert build(text).output(Spec.of(image)) == spec
    assert Spec.of(build(text).whole(image)) == spec


@pytest.mark.parametrize(
    ("text", "size", "how"),
    [
        ("resize factor=0.5", (50, 35), cv2.INTER_AREA),
        ("resize factor=1.5", (150, 105), cv2.INTER_LINEAR),
        ("resize factor=0.5 method=linear", (50, 35), cv2.INTER_LINEAR),
        ("resize width=30 method=area", (30, 21), cv2.INTER_AREA),
    ],
)
def test_resize_equals_opencv(text: str, size: tuple[int, int], how: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    assert np.array_equal(build(text).whole(image), cv2.resize(image, size, interpolation=how))


def test_to8bit_equals_cv2_imread_of_a_16_bit_file() -> None:
    image = np.random.default_rng(1).integers(0, 65536, (40, 40), dtype=np.uint16)
    png = cv2.imencode(".png", image)[1]
    assert np.array_equal(build("to8bit").process(image), cv2.imdecode(png, cv2.IMREAD_GRAYSCALE))


def test_overlay_paints_on_a_copy_of_the_original() -> None:
    original: Image = np.full((2, 2, 3), 100, np.uint8)
    mask: Image = np.array([[255, 0], [0, 1]], np.uint8)
    drawn = run_whole(parse("overlay colour=#ff8000"), mask, original)
    assert drawn.tolist() == [[[0, 128, 255], [100] * 3], [[100] * 3, [0, 128, 255]]]
    assert (original == 100).all()


def test_overlay_blends_by_its_opacity() -> None:
    original: Image = np.full((1, 1, 3), 100, np.uint8)
    drawn = run_whole(
        parse("overlay colour=green opacity=0.5"), np.ones((1, 1), np.uint8), original
    )
    assert drawn.tolist() == [[[50, 178, 50]]]


def test_overlay_draws_on_gray_and_on_16_bit_originals() -> None:
    mask: Image = np.zeros((1, 1), np.uint8)
    for original in (np.full((1, 1), 7, np.uint8), np.full((1, 1, 3), 7 * 256 + 5, np.uint16)):
        assert run_whole((Overlay(),), mask, original).tolist() == [[[7, 7, 7]]]


def test_overlay_refuses_an_original_of_another_size() -> None:
    with pytest.raises(OperatorError, match="must not change the size before it"):
        run_whole((Overlay(),), np.zeros((2, 2), np.uint8), np.zeros((4, 4), np.uint8))
    with pytest.raises(OperatorError, match="was not prepared"):
        Overlay().process(np.zeros((2, 2), np.uint8))


def test_prepared_overlays_are_sent_and_compared_without_their_original() -> None:
    original: Image = np.zeros((1, 1, 3), np.uint8)
    prepared = Overlay().prepare(np.zeros((1, 1), np.uint8), original)
    assert prepared == Overlay()
    assert prepared.params() == {}


def test_a_tile_without_seams_leaves_nothing_open() -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 50), dtype=np.uint8)
    operator = Canny(low=100, high=900)
    result = operator.process_tile(image, Rect(0, 0, 50, 50), Seams())
    assert np.array_equal(result, operator.process(image))


@pytest.mark.parametrize("side", ["top", "left", "bottom", "right"])
def test_open_pixels_are_exactly_the_candidates_connected_to_a_seam(side: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 60), dtype=np.uint8)
    operator = Canny(low=100, high=900)
    states = operator.process_tile(image, Rect(0, 0, 50, 60), Seams(**{side: True}))
    edges, candidates = operator.process(image), Canny(low=100, high=100).process(image)
    labels = cv2.connectedComponents(candidates & ~edges, connectivity=8)[1]
    line = {"top": labels[0], "left": labels[:, 0], "bottom": labels[-1], "right": labels[:, -1]}
    connected = np.isin(labels, line[side][line[side] > 0])
    assert connected.any()
    assert np.array_equal(states == 128, connected)
    assert np.array_equal(states == 255, edges == 255)


def test_one_thread_limits_opencv() -> None:
    before = cv2.getNumThreads()
    one_thread()
    assert cv2.getNumThreads() == 1
    cv2.setNumThreads(before)


def test_every_docstring_names_the_images_and_the_parameters() -> None:
    for name in registry.names():
        text = registry.load(name).__doc__ or ""
        assert "Takes" in text, name
        parameters = registry.parameters(registry.load(name))
        assert all(f"{key}" in text for key in parameters), name
