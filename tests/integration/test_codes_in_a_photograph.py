"""A photograph of 24 million pixels with codes of many sizes, from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fogmqtt
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import pipeline
from tests.printed import pasted, qr, zxing
from tests.processes import Fog

pytestmark = [pytest.mark.broker, pytest.mark.serial, pytest.mark.proof]

SIZE = (6000, 4000)
PIPELINE = "codes kinds=qr,code128,datamatrix"
DENSE = "sixty characters in bars that are two pixels wide, 0123456789"


def photograph() -> Image:
    """Codes from 60 to 2 000 pixels, one of them turned, on a photograph, a little blurred."""
    picture = cv2.imread(str(Path(fogmqtt.__file__).parent / "cli" / "photo.png"), 0)
    image = cv2.resize(picture, SIZE, interpolation=cv2.INTER_CUBIC)
    dense = zxing("Code128", DENSE, 2)
    turned = np.full((700, 700), 255, np.uint8)
    pasted(turned, cv2.resize(zxing("Code128", "TURNED-7", 3), (420, 130)), 285, 140)
    turn = cv2.getRotationMatrix2D((350, 350), 37, 1)
    for code, top, left in (
        (cv2.resize(qr("large"), (2000, 2000), interpolation=cv2.INTER_NEAREST), 1200, 3500),
        (qr("small"), 150, 200),
        (zxing("DataMatrix", "matrix", 4), 300, 2900),
        (cv2.resize(zxing("DataMatrix", "large matrix"), (900, 900)), 2500, 300),
        (cv2.resize(dense, (dense.shape[1], 120), interpolation=cv2.INTER_AREA), 3600, 2000),
        (cv2.warpAffine(turned, turn, (700, 700), borderValue=255), 900, 1500),
    ):
        pasted(image, code, top, left)
    return cv2.GaussianBlur(image, (0, 0), 0.6)


def test_a_fleet_finds_the_codes_of_24_million_pixels_as_one_machine_does(lone_fog: Fog) -> None:
    image = photograph()
    path = lone_fog.save("in.png", image)
    lone_fog.fleet("eya", "oumayma")
    lone_fog.examined()
    run = lone_fog.start_run(path, "-o", "out.json", "--pipeline", PIPELINE)
    whole = pipeline.run_whole(pipeline.parse(PIPELINE), image, image)
    assert run.ended(within=300) == 0, run.said
    found = json.loads((lone_fog.folder / "out.json").read_text())
    assert isinstance(whole, dict)
    assert found["codes"] == whole["codes"]
    assert sorted((one["kind"], one["text"]) for one in found["codes"]) == [
        ("code128", "TURNED-7"),
        ("code128", DENSE),
        ("datamatrix", "large matrix"),
        ("datamatrix", "matrix"),
        ("qr", "large"),
        ("qr", "small"),
    ]
