"""The image that shows which device processed which tile."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.mosaic import COLOURS, mosaic

PIECES = [("eya", 0, 0, 60, 50), ("manar", 0, 50, 60, 50)]
PHOTO = np.full((60, 100, 3), 120, np.uint8)
EMPTY_RESULT = np.zeros((60, 100), np.uint8)


def test_each_device_has_its_own_tint_and_a_legend_entry() -> None:
    picture = mosaic(PHOTO, EMPTY_RESULT, PIECES)
    assert picture.dtype == np.uint8
    assert picture.shape[0] > 60
    assert picture.shape[1:] == (100, 3)
    assert not np.array_equal(picture[30, 25], picture[30, 75])


def test_bright_pixels_of_the_result_are_white() -> None:
    edges = EMPTY_RESULT.copy()
    edges[30, 30] = 255
    assert mosaic(PHOTO, edges, PIECES)[30, 30].tolist() == [255, 255, 255]


def test_a_gray_photo_and_a_result_of_another_size_work() -> None:
    picture = mosaic(PHOTO[:, :, 0], np.zeros((7, 7), np.uint8), PIECES)
    assert picture.shape[1:] == (100, 3)


def test_the_photo_is_unchanged() -> None:
    mosaic(PHOTO, EMPTY_RESULT, PIECES)
    assert (PHOTO == 120).all()


def test_more_devices_than_colours_work() -> None:
    many = [(f"d{number}", 0, number * 5, 60, 5) for number in range(len(COLOURS) + 3)]
    assert mosaic(PHOTO, EMPTY_RESULT, many).shape[1] == 100


def test_an_image_without_pieces_works() -> None:
    assert mosaic(PHOTO, EMPTY_RESULT, []).shape[0] > 60
