"""Images that are read and written by rectangle."""

from __future__ import annotations

import numpy as np
import pytest

from fogmqtt.core.geometry import Grid, Rect, cut
from fogmqtt.errors import ImageError
from fogmqtt.images.source import ArrayImage, ImageBuffer
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import PasteMerger

SPECS = [Spec(6, 9), Spec(6, 9, 3, "uint16"), Spec(6, 9, 4, "float32")]


def numbered(spec: Spec) -> Image:
    """An image in which each value occurs once."""
    return np.arange(spec.nbytes // np.dtype(spec.dtype).itemsize, dtype=spec.dtype).reshape(
        spec.array_shape
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_new_array_image_has_its_spec_and_only_zeros(spec: Spec) -> None:
    image = ArrayImage.zeros(spec)
    assert image.spec == spec == Spec.of(image.array)
    assert not image.array.any()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_rectangle_that_was_written_can_be_read(spec: Spec) -> None:
    image = ArrayImage.zeros(spec)
    rect = Rect(1, 2, 3, 4)
    pixels = numbered(spec)[rect.slices] + 1
    image.write(rect, pixels)
    assert np.array_equal(image.read(rect), pixels)
    image.array[rect.slices] = 0
    assert not image.array.any(), "pixels outside of the rectangle were written"


def test_an_array_is_wrapped_and_not_copied() -> None:
    array = np.zeros((4, 5), np.uint8)
    image = ArrayImage(array)
    image.write(Rect(3, 4, 1, 1), np.array([[7]], np.uint8))
    assert image.array is array
    assert array[3, 4] == 7


@pytest.mark.parametrize(
    "rect", [Rect(-1, 0, 2, 2), Rect(0, 4, 1, 2), Rect(3, 0, 2, 1)], ids=["above", "right", "below"]
)
def test_a_rectangle_beyond_the_image_is_refused(rect: Rect) -> None:
    image = ArrayImage.zeros(Spec(4, 5))
    with pytest.raises(ImageError, match="not within the image"):
        image.read(rect)
    with pytest.raises(ImageError, match="not within the image"):
        image.write(rect, np.zeros((rect.height, rect.width), np.uint8))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 2, 1), np.uint8),
        np.zeros((1, 1), np.uint8),
        np.zeros((2, 2), np.uint16),
    ],
    ids=["too wide", "another dimension", "would be broadcast", "another dtype"],
)
def test_pixels_of_another_shape_or_dtype_are_refused(pixels: Image) -> None:
    image = ArrayImage.zeros(Spec(4, 5))
    with pytest.raises(ImageError, match=r"the shape must be \(2, 2\) and the dtype uint8"):
        image.write(Rect(0, 0, 2, 2), pixels)
    assert not image.array.any()


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", ["given", "made"])
def test_a_paste_merger_writes_its_tiles_to_the_image(spec: Spec, kind: str) -> None:
    expected = numbered(spec)
    given: ImageBuffer | None = ArrayImage.zeros(spec) if kind == "given" else None
    merger = PasteMerger(spec, given)
    for tile in cut(spec.size, Grid(2, 3)):
        merger.paste(tile, expected[tile.core.slices])
    assert np.array_equal(merger.finish(), expected)
    if given is not None:
        assert np.array_equal(given.read(Rect(0, 0, *spec.size)), expected)
