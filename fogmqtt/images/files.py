"""Image files: bytes to the array that OpenCV makes of them, and arrays to files.

Pillow reads the header, so that a file is refused by name before a pixel is allocated; the
pixels are OpenCV's own, so that "the whole image" means what `cv2.imread` gives.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from fogmqtt.errors import ImageError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec

# Our own limit speaks instead, in pixels that the user chose. Pillow knows it for the whole
# process only.
Pillow.MAX_IMAGE_PIXELS = None

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

#: Pillow's modes that we read, and what is lost on the way.
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
#: How files of these formats begin.
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"MM\0*")


#: How many pixels are read where nobody configured it.
MAX_PIXELS = 500_000_000


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A file's pixels: gray (height, width) or BGR (height, width, 3), uint8 or uint16."""

    image: Image
    spec: Spec
    #: What the user may want to know: what was dropped, converted or turned.
    notes: tuple[str, ...]
    #: PNG, JPEG, WEBP, BMP or TIFF.
    format: str


@dataclass(frozen=True, slots=True)
class Header:
    """What a file announces: its kind, Pillow's mode, height and width, and how many frames."""

    format: str
    mode: str
    size: tuple[int, int]
    frames: int

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]


def read(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """The image in a file's bytes, as `cv2.imread` reads it: 16 bits kept, EXIF turned.

    A palette becomes colour, CMYK becomes BGR, alpha is dropped; the notes say so. `name` is for
    messages. Raises ImageError for what is no image, damaged, cut short, empty, of more than
    `max_pixels` or of a kind that is not read.
    """
    return decode(data, inspect(data, name, max_pixels=max_pixels), name)


def inspect(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Header:
    """The first half of `read`: what is announced, before memory is taken for pixels.

    Raises ImageError for what is announced wrongly, too large or of a kind that is not read.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty")
    header = _header(data, name)
    _check_size(header, name, max_pixels)
    if header.mode not in _MODES:
        raise ImageError(
            f"{name}: {header.format} of mode {header.mode} is not read; "
            "save it with 8 or 16 bits per channel, gray or RGB"
        )
    return header


def decode(data: bytes, header: Header, name: str) -> LoadedImage:
    """The second half of `read`. Raises ImageError for what is damaged or cut short."""
    with ThreadPoolExecutor(1) as beside:
        checked = beside.submit(_check_complete, data, header, name)
        try:
            image = _pixels(data, header, name)
        finally:
            checked.result()  # knows better what is wrong than OpenCV does
    spec = Spec.of(image)
    if spec.size not in (header.size, header.size[::-1]):  # as it lies, or turned by its EXIF
        raise ImageError(f"{name}: announces {header.size} pixels and holds {spec}")
    return LoadedImage(image, spec, tuple(_notes(header)), header.format)


def encode_file(image: Image, suffix: str) -> bytes:
    """The bytes of an image file of the kind that `suffix` (".png") names.

    Raises ImageError for an unknown suffix, or an image that such a file cannot hold.
    """
    suffix = suffix.lower()
    kind = _kind(suffix)
    if image.dtype.name not in kind.dtypes:
        raise ImageError(f"{suffix} files hold no {Spec.of(image)} image; {_way_out(image)}")
    try:
        fine, data = cv2.imencode(suffix, image, list(kind.options))
    except cv2.error as problem:
        raise ImageError(f"cannot write {Spec.of(image)} as {suffix}: {problem.err}") from None
    if not fine:
        raise ImageError(f"cannot write {Spec.of(image)} as {suffix}")
    return data.tobytes()


def check_suffix(path: Path) -> None:
    """Raise ImageError unless `write` knows the kind of file that the path names."""
    _kind(path.suffix)


def write(path: Path, image: Image) -> None:
    """Write a file of the kind that its suffix names; whoever looks finds all of it or none.

    Raises ImageError like `encode_file` and `write_bytes`.
    """
    write_bytes(path, encode_file(image, path.suffix))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file at once: whoever looks finds the old one or all of the new one.

    Raises ImageError where the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ImageError(f"cannot write {path}: {problem.strerror}") from None


def _kind(suffix: str) -> _Kind:
    kind = _WRITTEN.get(suffix.lower())
    if kind is None:
        raise ImageError(f"cannot write {suffix!r} files; these work: {', '.join(_WRITTEN)}")
    return kind


@dataclass(frozen=True, slots=True)
class _Kind:
    dtypes: tuple[str, ...]
    options: tuple[int, ...] = ()


_TIFF = _Kind(("uint8", "uint16", "int16", "int32", "float32", "float64"))
_WRITTEN = {
    ".png": _Kind(("uint8", "uint16")),
    ".jpg": _Kind(("uint8",)),
    ".jpeg": _Kind(("uint8",)),
    # Over 100 is lossless.
    ".webp": _Kind(("uint8",), (cv2.IMWRITE_WEBP_QUALITY, 101)),
    ".bmp": _Kind(("uint8",)),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}


def _way_out(image: Image) -> str:
    if image.dtype == np.uint16:
        return "write .png or .tiff, or end the pipeline with 'to8bit'"
    return "write .tiff, or end the pipeline with an operator that gives 8 bits"


def _header(data: bytes, name: str) -> Header:
    try:
        with Pillow.open(io.BytesIO(data), formats=_FORMATS) as file:
            return Header(
                format="JPEG" if file.format == "MPO" else file.format or "",
                mode=file.mode,
                size=(file.height, file.width),
                frames=getattr(file, "n_frames", 1),
            )
    except UnidentifiedImageError:
        if data.startswith(_SIGNATURES):
            raise ImageError(f"{name}: the header is damaged, or announces no pixels") from None
        raise ImageError(f"{name}: not an image that is read ({', '.join(_FORMATS)})") from None
    # Pillow's readers of damaged headers raise what Python happens to.
    except (OSError, ValueError, SyntaxError, struct.error, LookupError, TypeError) as problem:
        raise ImageError(f"{name}: the header is damaged: {problem}") from None


def _check_size(header: Header, name: str, max_pixels: int) -> None:
    height, width = header.size
    if height < 1 or width < 1:
        raise ImageError(f"{name}: {width}x{height} pixels, so there is nothing in it")
    if height * width > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {height * width} pixels, over "
            f"limits.max_pixels = {max_pixels}"
        )


def _check_complete(data: bytes, header: Header, name: str) -> None:
    """OpenCV fills what is missing of a file with gray; we refuse it."""
    check: Callable[[bytes], None] = _verify_png if header.format == "PNG" else _decode_all
    try:
        check(data)
    except (OSError, ValueError, SyntaxError, struct.error, LookupError, EOFError) as problem:
        raise ImageError(
            f"{name}: the {header.format} is damaged or cut short: {problem}"
        ) from None


def _verify_png(data: bytes) -> None:
    """Walk the chunks, their checksums included: far cheaper than to decode twice."""
    with Pillow.open(io.BytesIO(data), formats=("PNG",)) as file:
        file.verify()


def _decode_all(data: bytes) -> None:
    with Pillow.open(io.BytesIO(data), formats=_FORMATS) as file:
        # JPEG: an eighth of the size takes all of the data and a fraction of the time.
        file.draft(file.mode, (1, 1))
        file.load()


def _pixels(data: bytes, header: Header, name: str) -> Image:
    kind = cv2.IMREAD_GRAYSCALE if header.mode in _GRAY_MODES else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), kind | cv2.IMREAD_ANYDEPTH)
    except cv2.error as problem:
        raise ImageError(f"{name}: OpenCV cannot decode it: {problem.err}") from None
    if image is None:
        raise ImageError(f"{name}: OpenCV cannot decode this {header.format} ({header.mode})")
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name}: {image.dtype} pixels are not read; save it with 8 or 16 bits")
    return image


def _notes(header: Header) -> Iterator[str]:
    if _MODES[header.mode]:
        yield _MODES[header.mode]
    if header.frames > 1:
        yield f"first of {header.frames} frames"
