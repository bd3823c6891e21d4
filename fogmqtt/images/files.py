"""Reads image files into arrays, and writes arrays to image files.

Pillow reads the header, so that a file is refused before memory for its pixels is allocated. OpenCV
decodes the pixels, so that they equal those of `cv2.imread`.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fogmqtt.errors import ImageError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

#: The supported modes of Pillow, each with a note about what is lost.
_MODES = {
    "1": "",
    "L": "",
    "I;16": "",
    "I;16B": "",
    "I;16L": "",
    "RGB": "",
    "RGBX": "",
    "P": "",
    "YCbCr": "",
    "LA": "alpha channel dropped",
    "La": "alpha channel dropped",
    "PA": "alpha channel dropped",
    "RGBA": "alpha channel dropped",
    "RGBa": "alpha channel dropped",
    "CMYK": "CMYK converted to BGR",
}
_GRAY_MODES = frozenset({"1", "L", "I;16", "I;16B", "I;16L", "LA", "La"})
#: The first bytes of files of these formats.
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"MM\0*")

#: The default of `max_pixels`.
MAX_PIXELS = 500_000_000


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """The pixels of a file: gray (height, width) or BGR (height, width, 3), uint8 or uint16."""

    image: Image
    spec: Spec
    #: Notes for the user about what was dropped or converted.
    notes: tuple[str, ...]
    #: PNG, JPEG, WEBP, BMP or TIFF.
    format: str


@dataclass(frozen=True, slots=True)
class Header:
    """What a file announces before its pixels are decoded."""

    #: PNG, JPEG, WEBP, BMP or TIFF.
    format: str
    #: Pillow's mode of the pixels.
    mode: str
    #: Height and width.
    size: tuple[int, int]
    frames: int

    @property
    def pixels(self) -> int:
        """The announced number of pixels."""
        return self.size[0] * self.size[1]

    @property
    def pixel_bytes(self) -> int:
        """The most bytes that a decoded pixel can have."""
        channels = 1 if self.mode in _GRAY_MODES else 3
        # Pillow's mode does not tell that a colour PNG or TIFF has 16 bits.
        return channels * (2 if self.format in ("PNG", "TIFF") else 1)


def load_pillow() -> types.ModuleType:
    """Import Pillow, which only a process that reads files needs, and return its `Image`."""
    from PIL import Image as Pillow

    # `max_pixels`, which the user configures, replaces Pillow's limit for the whole process.
    Pillow.MAX_IMAGE_PIXELS = None
    return Pillow


def read(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """Return the image in the bytes of a file, as `cv2.imread` reads it.

    16 bits are kept, and the image is rotated as its EXIF data say. A palette becomes colour, CMYK
    becomes BGR, and alpha is dropped; the notes list such losses. `name` names the file in
    messages. Raises ImageError if the file is empty, no image, damaged, truncated, larger than
    `max_pixels` or of an unsupported kind.
    """
    return decode(data, inspect(data, name, max_pixels=max_pixels), name)


def inspect(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Return the header of a file: the first step of `read`, before memory for pixels is needed.

    Raises ImageError if the header is damaged, or announces too many pixels or an unsupported kind.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty")
    header = _header(data, name)
    _check_size(header, name, max_pixels)
    if header.mode not in _MODES:
        raise ImageError(
            f"{name}: {header.format} of mode {header.mode} is not supported; "
            "save it with 8 or 16 bits per channel, gray or RGB"
        )
    return header


def decode(data: bytes, header: Header, name: str) -> LoadedImage:
    """Decode the pixels: the second step of `read`.

    Raises ImageError if the file is damaged or truncated.
    """
    with ThreadPoolExecutor(1) as executor:
        check = executor.submit(_check_complete, data, header, name)
        try:
            image = _decode_pixels(data, header, name)
        finally:
            check.result()  # its error is more precise than OpenCV's
    spec = Spec.of(image)
    if spec.size not in (header.size, header.size[::-1]):  # rotated if the EXIF data say so
        raise ImageError(
            f"{name}: the header announces {header.size} pixels, but the file holds {spec}; "
            "save it again with another program"
        )
    return LoadedImage(image, spec, tuple(_notes(header)), header.format)


def encode_file(image: Image, suffix: str) -> bytes:
    """Return the bytes of an image file of the kind that `suffix` (such as ".png") names.

    Raises ImageError for an unknown suffix and for an image that such a file cannot hold.
    """
    suffix = suffix.lower()
    kind = _kind(suffix)
    if image.dtype.name not in kind.dtypes:
        raise ImageError(
            f"{suffix} files cannot hold a {Spec.of(image)} image; {_suggestion(image)}"
        )
    try:
        is_encoded, data = cv2.imencode(suffix, image, list(kind.options))
    except cv2.error as problem:
        raise ImageError(f"cannot write {Spec.of(image)} as {suffix}: {problem.err}") from None
    if not is_encoded:
        raise ImageError(f"cannot write {Spec.of(image)} as {suffix}")
    return data.tobytes()


def check_suffix(path: Path) -> None:
    """Raise ImageError unless `write` supports the suffix of the path."""
    _kind(path.suffix)


def write(path: Path, image: Image) -> None:
    """Write an image file of the kind that the suffix names, atomically.

    Raises ImageError as `encode_file` and `write_bytes` do.
    """
    write_bytes(path, encode_file(image, path.suffix))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader finds the old content or all of the new content.

    Raises ImageError if the folder cannot be written.
    """
    # Without the name in it: that may be as long as the file system allows.
    part = path.with_name(f".fog-{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ImageError(f"cannot write {path}: {problem.strerror}") from None


def _kind(suffix: str) -> _Kind:
    kind = _KINDS.get(suffix.lower())
    if kind is None:
        raise ImageError(f"cannot write {suffix!r} files; use one of {', '.join(_KINDS)}")
    return kind


@dataclass(frozen=True, slots=True)
class _Kind:
    dtypes: tuple[str, ...]
    options: tuple[int, ...] = ()


_TIFF = _Kind(("uint8", "uint16", "int16", "int32", "float32", "float64"))
_KINDS = {
    ".png": _Kind(("uint8", "uint16")),
    ".jpg": _Kind(("uint8",)),
    ".jpeg": _Kind(("uint8",)),
    # A quality over 100 is lossless.
    ".webp": _Kind(("uint8",), (cv2.IMWRITE_WEBP_QUALITY, 101)),
    ".bmp": _Kind(("uint8",)),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}


def _suggestion(image: Image) -> str:
    if image.dtype == np.uint16:
        return "write .png or .tiff, or end the pipeline with 'to8bit'"
    return "write .tiff, or end the pipeline with an operator that gives 8 bits"


def _header(data: bytes, name: str) -> Header:
    pillow = load_pillow()
    try:
        with pillow.open(io.BytesIO(data), formats=_FORMATS) as file:
            return Header(
                format="JPEG" if file.format == "MPO" else file.format or "",
                mode=file.mode,
                size=(file.height, file.width),
                frames=getattr(file, "n_frames", 1),
            )
    except pillow.UnidentifiedImageError:
        if data.startswith(_SIGNATURES):
            raise ImageError(f"{name}: the header is damaged, or announces no pixels") from None
        raise ImageError(
            f"{name}: not an image of a supported format ({', '.join(_FORMATS)})"
        ) from None
    # Pillow raises many kinds of errors for a damaged header.
    except (OSError, ValueError, SyntaxError, struct.error, LookupError, TypeError) as problem:
        raise ImageError(f"{name}: the header is damaged: {problem}") from None


def _check_size(header: Header, name: str, max_pixels: int) -> None:
    height, width = header.size
    if height < 1 or width < 1:
        raise ImageError(f"{name}: the image has {width}x{height} pixels, so it is empty")
    if height * width > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {height * width} pixels, over "
            f"limits.max_pixels = {max_pixels}; raise the limit or use a smaller image"
        )


def _check_complete(data: bytes, header: Header, name: str) -> None:
    """Raise ImageError for a truncated file, whose missing part OpenCV would fill with gray."""
    check: Callable[[bytes], None] = _verify_png if header.format == "PNG" else _decode_all
    try:
        check(data)
    except (OSError, ValueError, SyntaxError, struct.error, LookupError, EOFError) as problem:
        raise ImageError(
            f"{name}: the {header.format} is damaged or truncated: {problem}"
        ) from None


def _verify_png(data: bytes) -> None:
    """Check all chunks with their checksums, which is far cheaper than a second decoding."""
    with load_pillow().open(io.BytesIO(data), formats=("PNG",)) as file:
        file.verify()


def _decode_all(data: bytes) -> None:
    with load_pillow().open(io.BytesIO(data), formats=_FORMATS) as file:
        # A JPEG at an eighth of its size reads all data in a fraction of the time.
        file.draft(file.mode, (1, 1))
        file.load()


def _decode_pixels(data: bytes, header: Header, name: str) -> Image:
    kind = cv2.IMREAD_GRAYSCALE if header.mode in _GRAY_MODES else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), kind | cv2.IMREAD_ANYDEPTH)
    except cv2.error as problem:
        raise ImageError(f"{name}: OpenCV cannot decode it: {problem.err}") from None
    if image is None:
        raise ImageError(f"{name}: OpenCV cannot decode this {header.format} ({header.mode})")
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"{name}: {image.dtype} pixels are not supported; save it with 8 or 16 bits"
        )
    return image


def _notes(header: Header) -> Iterator[str]:
    if _MODES[header.mode]:
        yield _MODES[header.mode]
    if header.frames > 1:
        yield f"first of {header.frames} frames"
