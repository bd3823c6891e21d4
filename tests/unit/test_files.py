"""Image files: read as OpenCV reads them, and refused before they do harm."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from fogmqtt.errors import ImageError
from fogmqtt.images import files, reader
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "TIFF"]
#: Which modes Pillow writes in which format.
MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["1", "L", "RGB", "YCbCr", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "I;16", "YCbCr", "CMYK"],
}
GRAY = {"1", "L", "LA", "I;16"}
ORIENTATION = 0x0112


def photo(height: int = 37, width: int = 53) -> Image:
    noise = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 2)


def file_of(form: str, mode: str = "RGB", **options: Any) -> bytes:
    image = Pillow.fromarray(np.ascontiguousarray(photo()[..., ::-1]))
    if mode == "I;16":
        image = Pillow.fromarray(photo()[..., 0].astype(np.uint16) * 257)
    elif mode in ("F", "I"):
        image = image.convert("L").convert(mode)
    elif mode == "RGBA":
        image.putalpha(Pillow.linear_gradient("L").resize(image.size))
    else:
        image = image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def rotated(form: str, orientation: int) -> bytes:
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    return file_of(form, exif=exif)


def as_cv2_reads(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def as_8_bit_colour(image: Image) -> Image:
    image = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


@pytest.mark.parametrize(("form", "mode"), [(f, m) for f in FORMATS for m in MODES[f]])
def test_a_file_is_read_as_cv2_imread_reads_it(form: str, mode: str) -> None:
    data = file_of(form, mode)
    loaded = reader.read(data, "photo")
    assert loaded.format == form
    assert np.array_equal(as_8_bit_colour(loaded.image), as_cv2_reads(data))
    assert loaded.spec.size == (37, 53)
    assert loaded.spec.channels == (1 if mode in GRAY else 3)
    assert loaded.spec.dtype == ("uint16" if mode == "I;16" else "uint8")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_rotated_as_cv2_imread_rotates_it(form: str, orientation: int) -> None:
    data = rotated(form, orientation)
    loaded = reader.read(data, "photo")
    assert np.array_equal(loaded.image, as_cv2_reads(data))
    assert loaded.spec.size == loaded.image.shape[:2]


@pytest.mark.parametrize(
    ("form", "mode", "note"),
    [
        ("PNG", "RGBA", "alpha channel dropped"),
        ("PNG", "LA", "alpha channel dropped"),
        ("JPEG", "CMYK", "CMYK converted to BGR"),
    ],
)
def test_losses_are_noted(form: str, mode: str, note: str) -> None:
    assert reader.read(file_of(form, mode), "photo").notes == (note,)
    assert reader.read(file_of("PNG"), "photo").notes == ()


def test_the_first_of_several_pages_or_another_is_read_and_noted() -> None:
    second = Pillow.new("RGB", (53, 37), "red")
    data = file_of("TIFF", save_all=True, append_images=[second])
    loaded = reader.read(data, "scan.tiff")
    assert np.array_equal(loaded.image, photo())
    assert loaded.notes == ("page 1 of 2",)
    second_page = reader.read(data, "scan.tiff", page=2)
    assert (second_page.image == (0, 0, 255)).all()
    assert second_page.notes == ("page 2 of 2",)


def test_16_bit_colour_is_kept() -> None:
    deep = photo().astype(np.uint16) * 257 + 3
    loaded = reader.read(files.encode_file(deep, ".png"), "deep.png")
    assert np.array_equal(loaded.image, deep)


def png_announcing(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum + file_of("PNG")[33:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "photo: the file is empty"),
        (
            b"hello",
            "it is a text file; images are read from PNG, JPEG, WEBP, BMP, TIFF, GIF",
        ),
        (b"GIF89a" + bytes(50), "the header of this GIF is damaged or truncated"),
        (png_announcing(60_000, 60_000), "60000x60000 is 3600000000 pixels, over .* = 500000000"),
        (png_announcing(0, 5), "photo: the image has 0x5 pixels, so there are no pixels"),
        (file_of("TIFF", "I"), "this TIFF cannot be read: it holds 32-bit signed integers; save"),
        (png_announcing(53, 38), "photo: .*(damaged|decode)"),
    ],
)
def test_an_unusable_file_is_refused_and_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        reader.read(data, "photo")


def test_the_limit_is_in_pixels_and_configurable() -> None:
    data = file_of("JPEG")
    assert reader.read(data, "photo", max_pixels=37 * 53).spec.size == (37, 53)
    with pytest.raises(ImageError, match=r"over limits.max_pixels = 1960"):
        reader.read(data, "photo", max_pixels=37 * 53 - 1)


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_refused_for_any_length(form: str) -> None:
    data = file_of(form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the same cut
        for length in range(1, len(data), 7):
            with pytest.raises(ImageError):
                reader.read(data[:length], "photo")
        if form != "JPEG":  # of which the end marker alone may be missing
            with pytest.raises(ImageError):
                reader.read(data[:-1], "photo")


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_is_read_or_raises_image_error(form: str) -> None:
    data, rng = file_of(form), np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the same damage
        for _ in range(200):
            damaged = bytearray(data)
            for at in rng.integers(0, min(len(data), int(rng.choice((40, 200, 10_000)))), 3):
                damaged[at] = rng.integers(256)
            with contextlib.suppress(ImageError):
                reader.read(bytes(damaged), "photo", max_pixels=10**6)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".tiff", ".PNG"])
def test_a_written_file_reads_back_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"result{suffix}"
    files.write(path, photo())
    assert np.array_equal(reader.read(path.read_bytes(), path.name).image, photo())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_jpeg_can_be_written(tmp_path: Path) -> None:
    files.write(tmp_path / "result.jpg", photo())
    assert reader.read((tmp_path / "result.jpg").read_bytes(), "result.jpg").format == "JPEG"


@pytest.mark.parametrize(
    ("image", "suffix", "message"),
    [
        (photo(), ".gif", r"cannot write '.gif' files; use one of .png, .jpeg, .jpg"),
        (photo(), "", "cannot write '' files"),
        (
            photo().astype(np.int16),
            ".png",
            "cannot hold a .* int16 image; write .tiff, or end",
        ),
        (photo().astype(np.float32), ".png", "float32 image; write .tiff"),
        (photo().astype(np.uint16), ".jpg", "write .png or .tiff, or .* 'to8bit'"),
    ],
)
def test_the_refusal_of_an_image_that_a_file_cannot_hold_suggests_a_format(
    image: Image, suffix: str, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        files.encode_file(image, suffix)


def test_a_signed_image_can_be_written_as_tiff(tmp_path: Path) -> None:
    slope = photo()[..., 0].astype(np.int16) - 128
    files.write(tmp_path / "slope.tiff", slope)
    kept = cv2.imread(str(tmp_path / "slope.tiff"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(kept, slope)


def test_a_failed_write_keeps_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "result.png"
    path.mkdir()
    with pytest.raises(ImageError, match=r"cannot write .*result\.png: Is a directory"):
        files.write(path, photo())
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.png"]
    with pytest.raises(ImageError, match="No such file or directory"):
        files.write(tmp_path / "nowhere" / "result.png", photo())


def test_a_suffix_can_be_checked_in_advance() -> None:
    files.check_suffix(Path("result.TIFF"))
    with pytest.raises(ImageError, match=r"cannot write '.xyz' files"):
        files.check_suffix(Path("result.xyz"))
