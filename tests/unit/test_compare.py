"""The comparison of two images."""

import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.images.compare import NO_DIFFERENCE, difference


def test_equal_images_do_not_differ():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert difference(image, image.copy()) == NO_DIFFERENCE


def test_a_difference_has_its_count_rectangle_and_mask():
    image = np.zeros((10, 20, 3), np.uint8)
    other = image.copy()
    other[2, 5, 0] = 1
    other[4, 9] = 1
    found = difference(image, other)
    assert found.pixels == 2
    assert found.where == Rect(2, 5, 3, 5)
    assert found.picture is not None
    assert found.picture.shape == (10, 20)
    assert set(zip(*np.nonzero(found.picture), strict=True)) == {(2, 5), (4, 9)}


def test_floats_are_compared_bit_for_bit():
    image = np.array([[np.nan, 0.0]], np.float32)
    assert difference(image, image.copy()) == NO_DIFFERENCE
    assert difference(image, np.array([[np.nan, -0.0]], np.float32)).pixels == 1


def test_another_shape_or_dtype_differs_everywhere():
    image = np.zeros((4, 5), np.uint8)
    assert difference(image, np.zeros((4, 6), np.uint8)).pixels == 24
    assert difference(image, np.zeros((4, 5), np.uint16)).pixels == 20
