"""Damaged image files, some by structure and some at random, from a seed."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image as Pillow

#: Numbers that a decoder must not trust in a header.
_ODD_32 = (0, 1, 0x7F, 0xFFFF, 0x10000, 100_000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)


def whole() -> dict[str, bytes]:
    """Return small valid files of every supported kind, by name."""
    rng = np.random.default_rng(5)
    gray = cv2.GaussianBlur(rng.integers(0, 256, (40, 56), np.uint8), (5, 5), 0)
    colour = cv2.applyColorMap(gray, cv2.COLORMAP_JET)
    deep = gray.astype(np.uint16) * 257
    made = {
        "gray.png": _by_cv2(".png", gray),
        "colour.png": _by_cv2(".png", colour),
        "deep.png": _by_cv2(".png", deep),
        "colour.jpg": _by_cv2(".jpg", colour),
        "colour.webp": _by_cv2(".webp", colour),
        "colour.bmp": _by_cv2(".bmp", colour),
        "colour.tiff": _by_cv2(".tiff", colour),
        "deep.tiff": _by_cv2(".tiff", deep),
    }
    picture = Pillow.fromarray(np.ascontiguousarray(colour[..., ::-1]))
    made["palette.png"] = _by_pillow(picture.quantize(16), "PNG")
    made["alpha.png"] = _by_pillow(picture.convert("RGBA"), "PNG")
    made["progressive.jpg"] = _by_pillow(picture, "JPEG", progressive=True)
    made["cmyk.jpg"] = _by_pillow(picture.convert("CMYK"), "JPEG")
    made["lossless.webp"] = _by_pillow(picture, "WEBP", lossless=True)
    made["lzw.tiff"] = _by_pillow(picture, "TIFF", compression="tiff_lzw")
    return made


def mutated(rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` damaged files, each with the name of the valid file that it was made of."""
    files = whole()
    names = sorted(files)
    for _ in range(count):
        name = rng.choice(names)
        data = bytearray(files[name])
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = rng.choice(_WAYS)(data, rng)
        if name.endswith(".png") and rng.random() < 0.6:
            data = _with_checksums(data)
        yield name, bytes(data)


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 3, 10))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _odd_figure(data: bytearray, rng: random.Random) -> bytearray:
    """Replace four bytes, mostly near the start, by a wrong length, size or offset."""
    if len(data) > 8:
        at = rng.randrange(min(len(data) - 4, rng.choice((40, 200, len(data)))) or 1)
        order = rng.choice("<>")
        data[at : at + 4] = struct.pack(f"{order}I", rng.choice(_ODD_32))
    return data


def _odd_byte(data: bytearray, rng: random.Random) -> bytearray:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return data


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def _drop(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 2, 16, 100))]
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) + 1)
    piece = data[at : at + rng.choice((1, 8, 64, 512))]
    return data[:at] + piece * rng.choice((2, 5, 50)) + data[at:]


def _noise(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
    return data


_WAYS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    *(_flip, _odd_figure, _odd_figure, _odd_byte, _cut, _drop, _repeat, _noise),
)


def _with_checksums(data: bytearray) -> bytearray:
    """Correct the checksums of a PNG's chunks, so that decoders read the damaged content."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return data


def _by_cv2(suffix: str, image: np.ndarray) -> bytes:  # type: ignore[type-arg]
    return cv2.imencode(suffix, image)[1].tobytes()


def _by_pillow(picture: Pillow.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
