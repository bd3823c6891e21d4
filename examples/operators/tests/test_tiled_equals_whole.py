"""Each operator gives the result of the whole image in tiles, bit for bit."""

import numpy as np
import pytest
from fog_examples.brightest import Brightest
from fog_examples.emboss import Emboss
from fog_examples.solarize import Solarize

from fogmqtt.images.cv import cv2
from fogmqtt.operators.api.testing import check_tiled_equals_whole

NOISE = np.random.default_rng(1).integers(0, 256, (101, 137, 3), np.uint8)
SOFT = cv2.GaussianBlur(NOISE, (0, 0), 4)


@pytest.mark.parametrize("image", [NOISE, SOFT, SOFT[:, :, 0].copy()])
@pytest.mark.parametrize("operator", [Emboss(), Solarize(), Solarize(above=0.5)])
def test_tiles_equal_the_whole(operator, image):
    check_tiled_equals_whole(operator, image)


def test_tiles_of_a_pipeline_equal_the_whole():
    check_tiled_equals_whole((Solarize(), Emboss(), Emboss()), SOFT)


@pytest.mark.parametrize("image", [NOISE, SOFT])
def test_the_brightest_pixel_is_found_in_tiles(image):
    check_tiled_equals_whole(Brightest(), image[:, :, 0].copy())
    check_tiled_equals_whole((Emboss(), Brightest()), image[:, :, 1].copy())
