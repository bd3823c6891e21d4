"""The end of an image file: what the format's own marks and lengths say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from fogmqtt.images.endings import Ending, ending

PIXELS = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, PIXELS)[1].tobytes()


def with_thumbnail() -> bytes:
    """A JPEG with a thumbnail, which has an end mark of its own, in its EXIF data."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "jpeg", exif=b"Exif\0\0" + encoded(".jpg"))
    return file.getvalue()


def told(data: bytes) -> Ending:
    return ending(io.BytesIO(data))


WHOLE = {suffix: encoded(suffix) for suffix in (".png", ".jpg", ".bmp", ".webp")} | {
    "thumbnail": with_thumbnail()
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_a_complete_file_is_whole_and_no_beginning_of_it_is(data: bytes) -> None:
    assert told(data) is Ending.WHOLE
    for length in range(26, len(data) - 12, 97):
        assert told(data[:length]) is Ending.MISSING, length


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("written", [0, 16_384])
def test_a_file_with_a_hole_is_not_whole(suffix: str, written: int, tmp_path: Path) -> None:
    """Some downloads reserve the space of a file, and write its end before its middle."""
    pixels = np.random.default_rng(1).integers(0, 255, (400, 400, 3), np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(data[:written])
        file.seek(len(data) - 16_384)
        file.write(data[-16_384:])
    with path.open("rb") as file:
        assert ending(file) is Ending.MISSING
    path.write_bytes(data)
    with path.open("rb") as file:
        assert ending(file) is Ending.WHOLE


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_what_follows_the_end_changes_nothing(suffix: str) -> None:
    assert told(encoded(suffix) + bytes(3_000_000)) is Ending.WHOLE


def test_an_end_mark_on_the_border_of_two_blocks_is_found() -> None:
    data = encoded(".jpg")
    scan = data.index(b"\xff\xda")
    padded = data[:-2].ljust(scan + (1 << 20) - 1, b"\0") + data[-2:] + bytes(100)
    assert told(padded) is Ending.WHOLE


def test_a_tiff_without_a_directory_is_not_whole() -> None:
    for mark in (b"II*\0", b"II+\0"):
        assert told(mark + bytes(60)) is Ending.MISSING


def written_tiff(**options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", metadata=None, **options)
    return file.getvalue()


def by_pillow(form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form, **options)
    return file.getvalue()


LATER = {
    # The directory comes last, or first.
    "libtiff": encoded(".tiff"),
    "bigtiff": by_pillow("tiff", big_tiff=True),
    "directory first": written_tiff(rowsperstrip=9),
    "big-endian": written_tiff(byteorder=">", rowsperstrip=9),
    "big-endian bigtiff": written_tiff(byteorder=">", bigtiff=True, tile=(16, 16)),
    "avif": by_pillow("AVIF"),
    "gif": by_pillow("GIF"),
    "jpeg 2000": encoded(".jp2"),
}


@pytest.mark.parametrize("data", LATER.values(), ids=LATER)
def test_these_are_whole_and_no_beginning_of_them_is(data: bytes) -> None:
    assert told(data) in (Ending.WHOLE, Ending.UNKNOWN)
    for length in range(26, len(data) - 12, 97):
        assert told(data[:length]) is not Ending.WHOLE, length


def test_a_tiff_whose_second_page_is_missing_is_not_whole() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for _ in range(2):
            writer.write(PIXELS, photometric="rgb", metadata=None)
    data = file.getvalue()
    assert told(data) is Ending.WHOLE
    assert told(data[:-100]) is Ending.MISSING


def test_directories_that_name_each_other_tell_nothing() -> None:
    data = b"II*\0\x08\0\0\0" + b"\0\0" + (8).to_bytes(4, "little") + bytes(20)
    assert told(data) is Ending.UNKNOWN


@pytest.mark.parametrize(
    "data", [b"", b"words", b"BM" + bytes(60), b"\x89PNG\r\n\x1a\n" + bytes(60)]
)
def test_other_bytes_tell_nothing(data: bytes) -> None:
    assert told(data) is Ending.UNKNOWN
