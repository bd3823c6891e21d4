"""A code that fills a large photograph is found with the default parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fogmqtt
from fogmqtt.images.cv import cv2
from fogmqtt.operators.api import registry
from tests.printed import qr

SIZE = (6000, 4000)


@pytest.mark.proof
def test_a_qr_code_that_fills_a_photograph_of_24_million_pixels_is_found() -> None:
    picture = cv2.imread(str(Path(fogmqtt.__file__).parent / "cli" / "photo.png"), 0)
    photo = cv2.resize(picture, SIZE, interpolation=cv2.INTER_CUBIC)
    code = cv2.resize(qr("fills it"), (3700, 3700), interpolation=cv2.INTER_NEAREST)
    turn = cv2.getRotationMatrix2D((1850, 1850), 8, 1)
    turn[:, 2] += (1150, 150)
    printed = cv2.warpAffine(code, turn, SIZE, borderValue=255)
    where = cv2.warpAffine(np.full_like(code, 255), turn, SIZE)
    image = cv2.GaussianBlur(np.where(where > 127, printed, photo), (0, 0), 4)
    operator = registry.build("codes", {}).prepare(image, image)
    # What windows of the image itself find is tested on smaller ones; they take 20 s here.
    (found,) = operator.merge([], image.shape)["codes"]  # type: ignore[attr-defined]
    assert (found["kind"], found["text"]) == ("qr", "fills it")
    assert np.abs(np.mean(found["corners"], axis=0) - (3000, 2000)).max() < 100
