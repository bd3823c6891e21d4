"""Small files that would cost minutes are refused before they are decoded."""

from __future__ import annotations

import io
import struct
import time

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from fogmqtt.images.formats import tiff
from fogmqtt.images.formats.jpeg_check import MAX_SCANS, check_stream, parse
from fogmqtt.images.formats.page import FormatError


def progressive() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64), np.uint8)
    Pillow.fromarray(pixels).save(file, "JPEG", progressive=True)
    return file.getvalue()


def test_a_usual_progressive_jpeg_is_taken() -> None:
    data = progressive()
    assert 3 <= parse(data).scans <= 20
    assert check_stream(data) == []


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded() -> None:
    data = progressive()
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    with pytest.raises(FormatError, match=f"more than {MAX_SCANS} scans"):
        check_stream(data[:last] + scan * 1000 + data[-2:])


@pytest.mark.parametrize("is_big", [False, True])
def test_a_tiff_of_very_many_pages_is_refused_without_reading_them(is_big: bool) -> None:
    if is_big:
        head, page, size = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16), "<QQ", 16
    else:
        head, page, size = struct.pack("<2sHL", b"II", 42, 8), "<HL", 6
    count = 200_000
    ends = (len(head) + (number + 1) * size for number in range(count))
    data = head + b"".join(struct.pack(page, 0, end) for end in ends)
    began = time.process_time()
    with pytest.raises(FormatError, match="more than 10000 pages"):
        tiff.pages(data)
    assert time.process_time() - began < 5


def test_a_tiff_whose_pages_lead_in_a_circle_ends() -> None:
    data = struct.pack("<2sHL", b"II", 42, 8) + struct.pack("<HL", 0, 8)
    with pytest.raises(FormatError):
        tiff.pages(data)


@pytest.mark.parametrize("is_big", [False, True])
def test_the_pages_of_a_usual_file_are_counted(is_big: bool) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=is_big) as writer:
        for _ in range(5):
            writer.write(np.zeros((8, 8), np.uint8), contiguous=False)
    data = file.getvalue()
    assert tiff._has_more_pages(data, 4)
    assert not tiff._has_more_pages(data, 5)
    assert len(tiff.pages(data)) == 5
