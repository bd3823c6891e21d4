"""Reads image files into arrays.

Each format has a reader in `formats`. A reader tells all pages of a file and what they will be, so
that a file is refused before memory for its pixels is allocated. What decoders disagree on is
decided by the format's specification, or refused: docs/formats.md.
"""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from fogmqtt.errors import ImageError
from fogmqtt.images.cv import cv2
from fogmqtt.images.files import MAX_PIXELS, LoadedImage
from fogmqtt.images.formats import (
    bmp,
    heic,
    jpeg,
    jpeg2000,
    netpbm,
    png,
    radiance,
    tiff,
    webp,
)
from fogmqtt.images.formats.animated import AnimatedReader
from fogmqtt.images.formats.kinds import describe_foreign, kind_of
from fogmqtt.images.formats.page import FormatError, Page, Reader
from fogmqtt.images.metadata import Pages
from fogmqtt.images.spec import Image, Spec

# `max_pixels`, which the user configures, replaces Pillow's limit for the whole process.
Pillow.MAX_IMAGE_PIXELS = None

_READERS: Final[dict[str, Reader]] = {
    "PNG": png,
    "JPEG": jpeg,
    "WEBP": webp,
    "BMP": bmp,
    "TIFF": tiff,
    "GIF": AnimatedReader("GIF"),
    "AVIF": AnimatedReader("AVIF"),
    "JPEG 2000": jpeg2000,
    "PNM": netpbm,
    "PFM": netpbm,
    "HDR": radiance,
    "HEIC": heic,
}
#: The formats that are read without an extra.
FORMATS: Final = tuple(name for name in _READERS if name != "HEIC")

#: What libraries raise for damaged files.
_DAMAGED: Final = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    EOFError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file announces before its pixels are decoded."""

    #: The name of the format, such as "PNG".
    format: str
    #: The pages to read, each with its number from 1 on.
    pages: tuple[tuple[int, Page], ...]
    #: The number of all pages of the file.
    page_count: int

    @property
    def pixels(self) -> int:
        """The pixels of all pages to read."""
        return sum(page.pixels for _, page in self.pages)

    @property
    def nbytes(self) -> int:
        """The bytes of all pages to read, decoded."""
        return sum(page.nbytes for _, page in self.pages)


def read(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, page: int | None = None
) -> LoadedImage:
    """Return the image in the bytes of a file, or the first of several.

    16 bits and floating point numbers are kept, and the image is turned as its EXIF data say. A
    palette becomes colour, CMYK becomes BGR, and alpha is dropped; the notes list such losses.
    `name` names the file in messages, and `page` another page than the first. Raises ImageError if
    the file is empty, no image, damaged, truncated, larger than `max_pixels` or of a kind that is
    not read.
    """
    header = inspect(data, name, max_pixels=max_pixels, pages=page or "first")
    return decode(data, header, name)


def inspect(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, pages: Pages = "first"
) -> Header:
    """Return the header of a file: the first step of `read`, before memory for pixels is needed.

    Raises ImageError if the header is damaged, or announces too many pixels or a kind that is not
    read.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty")
    form = kind_of(data)
    if form is None:
        raise ImageError(
            f"{name}: not an image that is read here: it is {describe_foreign(data)}; "
            f"images are read from {', '.join(FORMATS)}"
        )
    try:
        found = _READERS[form].pages(data)
    except FormatError as problem:
        raise ImageError(f"{name}: this {form} cannot be read: {problem}") from None
    except _DAMAGED as problem:
        raise ImageError(
            f"{name}: the header of this {form} is damaged or truncated: {_one_line(problem)}"
        ) from None
    header = Header(form, _select(found, pages, name), len(found))
    _check_size(header, name, max_pixels)
    return header


def decode(data: bytes, header: Header, name: str, index: int = 0) -> LoadedImage:
    """Decode the pixels of one of the header's pages: the second step of `read`.

    Raises ImageError if the file is damaged or truncated.
    """
    reader, (number, page) = _READERS[header.format], header.pages[index]
    try:
        with ThreadPoolExecutor(1) as executor:
            check = executor.submit(reader.check, data, page)
            try:
                image = reader.decode(data, page)
            finally:
                oddities = check.result()  # its error is more precise than the decoder's
    except FormatError as problem:
        raise ImageError(f"{name}: this {header.format} cannot be read: {problem}") from None
    except cv2.error as problem:
        raise ImageError(f"{name}: {_describe_opencv(problem, header.format, page)}") from None
    except _DAMAGED as problem:
        raise ImageError(
            f"{name}: this {header.format} is damaged or truncated: {_one_line(problem)}"
        ) from None
    _check_result(image, page, name)
    upright = np.ascontiguousarray(_turn(image, page.orientation))
    notes = [*page.notes, *oddities]
    if header.page_count > 1 and len(header.pages) == 1:
        notes.append(f"page {number} of {header.page_count}")
    return LoadedImage(upright, Spec.of(upright), tuple(notes), header.format, page.metadata)


def _select(found: list[Page], pages: Pages, name: str) -> tuple[tuple[int, Page], ...]:
    """Return the chosen pages with their numbers."""
    if pages == "all":
        return tuple(enumerate(found, 1))
    number = 1 if pages == "first" else pages
    if not 1 <= number <= len(found):
        raise ImageError(f"{name}: there is no page {number}; the file has {len(found)}")
    return ((number, found[number - 1]),)


def _check_size(header: Header, name: str, max_pixels: int) -> None:
    for _, page in header.pages:
        height, width = page.size
        if height < 1 or width < 1:
            raise ImageError(
                f"{name}: the image has {width}x{height} pixels, so there are no pixels"
            )
    if header.pixels > max_pixels:
        height, width = header.pages[0][1].size
        what = f"{width}x{height} is"
        if len(header.pages) > 1:
            what = f"{len(header.pages)} pages of up to {width}x{height} are"
        raise ImageError(
            f"{name}: {what} {header.pixels} pixels, over "
            f"limits.max_pixels = {max_pixels}; raise the limit or use a smaller image"
        )


def _turn(image: Image, orientation: int) -> Image:
    """Return the image upright. 1 is upright already, and so is any value outside 1 to 8."""
    match orientation:
        case 2:
            return cv2.flip(image, 1)
        case 3:
            return cv2.rotate(image, cv2.ROTATE_180)
        case 4:
            return cv2.flip(image, 0)
        case 5:
            return np.ascontiguousarray(image.swapaxes(0, 1))
        case 6:
            return cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            return np.ascontiguousarray(image[::-1, ::-1].swapaxes(0, 1))
        case 8:
            return cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return image


def _check_result(image: Image, page: Page, name: str) -> None:
    """Raise ImageError if the pixels are not what the header announced: memory is for that."""
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.shape[:2] == page.size and (channels, image.dtype.name) == (page.channels, page.dtype):
        return
    announced = Spec(*page.size, page.channels, page.dtype)
    raise ImageError(
        f"{name}: the header announces {announced}, but the file holds {Spec.of(image)}; "
        "save it again with another program"
    )


def _describe_opencv(problem: cv2.error, form: str, page: Page) -> str:
    if "CV_IO_MAX" in problem.err:
        return (
            f"this {form} cannot be read: it is {page.size[1]}x{page.size[0]} pixels, and of this "
            f"kind a side is read up to {1 << 20} and an image up to {1 << 30} (OpenCV's limit); "
            "save it as a TIFF with LZW, deflate or no compression"
        )
    return f"OpenCV cannot decode this {form}: {_one_line(problem.err)}"


def _one_line(problem: BaseException | str) -> str:
    if isinstance(problem, UnidentifiedImageError):
        return "its decoder does not recognise it"
    text = " ".join(str(problem).split())
    return text or type(problem).__name__
