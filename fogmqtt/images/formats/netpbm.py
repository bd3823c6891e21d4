"""Reads PBM, PGM, PPM, PAM and PFM files with numpy."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np

from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.spec import Image

#: White space and comments between the fields of a header.
_GAP: Final = rb"(?:\s|#[^\n\r]*[\n\r])+"
_BITMAP: Final = re.compile(rb"P([14])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
_PIXMAP: Final = re.compile(
    rb"P([2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s"
)
_FLOATS: Final = re.compile(rb"P([Ff])\s+(\d+)\s+(\d+)\s+(-?[0-9.eE+-]+)\s")
_PAM: Final = re.compile(rb"P7\s(.*?)ENDHDR\n", re.DOTALL)
_COMMENT: Final = re.compile(rb"#[^\n\r]*")
_MOST: Final = 65535


@dataclass(frozen=True, slots=True)
class _Detail:
    is_text: bool
    #: Samples of a pixel as they are stored, alpha included.
    samples: int
    #: The largest value; 0 for floating point, 1 for a bitmap.
    most: int
    is_bitmap: bool
    offset: int
    #: The byte order of floating point numbers.
    order: str = ">"


def pages(data: bytes) -> list[Page]:
    """Return the one image of the file."""
    if found := _BITMAP.match(data):
        kind, width, height = (int(field) for field in found.groups())
        detail = _Detail(kind == 1, 1, 1, is_bitmap=True, offset=found.end())
        return [_page(height, width, detail)]
    if found := _PIXMAP.match(data):
        kind, width, height, most = (int(field) for field in found.groups())
        if not most:
            raise FormatError("its largest value is given as 0; it is damaged")
        samples = 3 if kind in (3, 6) else 1
        detail = _Detail(kind in (2, 3), samples, most, is_bitmap=False, offset=found.end())
        return [_page(height, width, detail)]
    if found := _FLOATS.match(data):
        width, height, scale = int(found[2]), int(found[3]), float(found[4])
        order = "<" if scale < 0 else ">"
        samples = 3 if found[1] == b"F" else 1
        detail = _Detail(False, samples, 0, is_bitmap=False, offset=found.end(), order=order)
        return [_page(height, width, detail)]
    if found := _PAM.match(data):
        return [_pam_page(found[1].decode("ascii", "replace"), found.end())]
    raise FormatError("the header is damaged or truncated")


def check(data: bytes, page: Page) -> list[str]:
    """Check that all bytes are there."""
    detail: _Detail = page.detail
    have, needed = len(data) - detail.offset, _stored_bytes(page)
    if not detail.is_text and have < needed:
        raise FormatError(f"it is truncated: it has {have:,} of {needed:,} bytes of pixels")
    return []


def decode(data: bytes, page: Page) -> Image:
    """Decode the image: gray or BGR."""
    check(data, page)
    detail: _Detail = page.detail
    height, width = page.size
    if detail.most == 0:
        return _decode_floats(data, page)
    if detail.is_text:
        values = _read_text(data, page)
    elif detail.is_bitmap:
        rows = np.frombuffer(data, np.uint8, _stored_bytes(page), detail.offset)
        values = np.unpackbits(rows.reshape(height, -1), axis=1, count=width)
    else:
        dtype = ">u2" if detail.most > 255 else "u1"
        count = height * width * detail.samples
        values = np.frombuffer(data, dtype, count, detail.offset)
    if detail.is_bitmap:
        return (values.reshape(height, width) ^ 1) * np.uint8(255)  # 1 is black
    values = values.reshape(height, width, detail.samples)
    colours = values[..., 2::-1] if page.channels == 3 else values[..., 0]
    return _scale(colours, detail.most)


def _page(height: int, width: int, detail: _Detail, notes: tuple[str, ...] = ()) -> Page:
    if not detail.is_bitmap and not 0 <= detail.most <= _MOST:
        raise FormatError(f"its largest value is given as {detail.most}, over {_MOST}")
    dtype = "uint16" if detail.most > 255 else "uint8"
    if detail.most == 0:
        dtype = "float32"
    channels = 3 if detail.samples >= 3 else 1
    return Page((height, width), channels, dtype, notes=notes, detail=detail)


def _pam_page(header: str, offset: int) -> Page:
    lines = (line.split(maxsplit=1) for line in header.splitlines() if line[:1] != "#")
    fields = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    missing = [name for name in ("WIDTH", "HEIGHT", "DEPTH", "MAXVAL") if name not in fields]
    if missing:
        raise FormatError(f"its PAM header has no {missing[0]}; it is damaged")
    samples, most = int(fields["DEPTH"]), int(fields["MAXVAL"])
    kind = fields.get("TUPLTYPE", "")
    if samples not in (1, 2, 3, 4) or most < 1 or (samples in (2, 4) and "ALPHA" not in kind):
        raise FormatError(
            f"it is a PAM of kind {kind or 'unnamed'} with {samples} channels up to {most}; "
            "save it as gray or RGB"
        )
    notes = ("alpha channel dropped",) if samples in (2, 4) else ()
    detail = _Detail(False, samples, most, is_bitmap=False, offset=offset)
    return _page(int(fields["HEIGHT"]), int(fields["WIDTH"]), detail, notes)


def _stored_bytes(page: Page) -> int:
    detail: _Detail = page.detail
    height, width = page.size
    if detail.is_bitmap:
        return height * -(-width // 8)
    size = 4 if detail.most == 0 else 1 + (detail.most > 255)
    return height * width * detail.samples * size


def _read_text(data: bytes, page: Page) -> Image:
    detail: _Detail = page.detail
    count = page.pixels * detail.samples
    text = _COMMENT.sub(b" ", data[detail.offset :])
    if detail.is_bitmap:  # digits need no space between them
        digits = re.sub(rb"\s+", b"", text)[:count]
        values = np.frombuffer(digits, np.uint8).astype(np.int64) - ord("0")
    else:
        with warnings.catch_warnings(action="ignore"):  # about what is no number: see below
            values = np.fromstring(text, np.int32, count, sep=" ")
    if len(values) < count:
        raise FormatError(f"it is truncated: it has {len(values):,} of {count:,} values")
    if values.min(initial=0) < 0 or values.max(initial=0) > detail.most:
        raise FormatError(f"a value is beyond its largest, {detail.most}; it is damaged")
    return values.astype(page.dtype)


def _decode_floats(data: bytes, page: Page) -> Image:
    detail: _Detail = page.detail
    count = page.pixels * detail.samples
    values = np.frombuffer(data, f"{detail.order}f4", count, detail.offset)
    # The lowest row comes first.
    image = values.reshape(*page.size, detail.samples)[::-1].astype(np.float32)
    return np.ascontiguousarray(image[..., ::-1] if detail.samples == 3 else image[..., 0])


def _scale(values: Image, most: int) -> Image:
    """Scale values to the whole range of their dtype. Raises FormatError for one over `most`."""
    full = 255 if most <= 255 else _MOST
    dtype = np.uint8 if most <= 255 else np.uint16
    if most == full:
        return np.ascontiguousarray(values.astype(dtype))
    if values.max(initial=0) > most:
        raise FormatError(f"a value is beyond its largest, {most}; it is damaged")
    table = np.array([(value * full + most // 2) // most for value in range(most + 1)], dtype)
    return table[values]
