"""Reads TIFF files by their tags.

tifffile reads the tags. The libtiff in Pillow decompresses strips and tiles to bytes. numpy makes
pixels of them, as the tags say. OpenCV decodes JPEG, fax and YCbCr, for which libtiff's own
conversion to RGB is right.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import tifffile

from fogmqtt.images.cv import cv2
from fogmqtt.images.formats import tiff_bytes
from fogmqtt.images.formats.jpeg_check import check_stream
from fogmqtt.images.formats.page import FormatError, Page
from fogmqtt.images.formats.tiff_exif import exif_of
from fogmqtt.images.formats.xmp import iptc_records, read_packet
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.spec import Image

#: More pages than any scanner writes. Each costs memory before a pixel is read.
MAX_PAGES: Final = 10_000

# Values of tags.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_JPEG = 7
_FAX: Final = frozenset((2, 3, 4))

_OTHER_COLOURS: Final = {
    4: "a transparency mask",
    8: "CIE L*a*b* colour",
    9: "ICC L*a*b* colour",
    10: "ITU L*a*b* colour",
    32803: "raw values of a camera's sensor (CFA)",
    32844: "LogL values",
    32845: "LogLuv colour",
    34892: "raw values of a camera's sensor (LinearRaw)",
}
#: What compressions that are not read are called.
_OTHER_CODECS: Final = {
    6: "old-style JPEG",
    9: "JBIG",
    10: "JBIG",
    32766: "NeXT",
    32809: "ThunderScan",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34933: "PNG",
    34934: "JPEG XR",
    22610: "JPEG XR",
    50001: "WebP",
    34927: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_ORIENTATION_TAG: Final = 274
_XMP_TAG: Final = 700
_IPTC_TAG: Final = 33723
_PHOTOSHOP_TAG: Final = 34377
#: The types of tags whose values are numbers, as `struct` names them.
_NUMBERS: Final = {1: "B", 3: "H", 4: "I"}
_GEO_TAGS: Final = (33550, 33922, 34264, 34735)
_INCH_PER_UNIT: Final = {2: 1.0, 3: 1 / 2.54}
_WAY_OUT = "save it as RGB or gray with 8 or 16 bits per channel"


@dataclass(frozen=True, slots=True)
class _Detail:
    """What the decoder needs of a page beside its tags."""

    page: tifffile.TiffPage
    #: The position among all pages of the file, those included that are left out.
    index: int
    #: Whether OpenCV decodes it.
    by_opencv: bool


def pages(data: bytes) -> list[Page]:
    """Return all full pages: reduced copies and masks are parts of another page."""
    if _has_more_pages(data, MAX_PAGES):
        raise FormatError(f"it has more than {MAX_PAGES} pages; split it")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        found = [(index, _require_page(page)) for index, page in enumerate(file.pages)]
    full = [(index, page) for index, page in found if not page.subfiletype & 0b101]
    full = full or found[:1]
    if not full:
        raise FormatError("it has no page")
    _check_hidden_pages(full[0][1], len(found))
    return [_page(data, page, index, len(found) - len(full)) for index, page in full]


def _has_more_pages(data: bytes, most: int) -> bool:
    """Whether a file has more pages; their list is followed no further, and no page is read."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    count_of = struct.Struct(f"{order}Q" if is_big else f"{order}H")
    offset_of = struct.Struct(f"{order}Q" if is_big else f"{order}L")
    entry_bytes = 20 if is_big else 12
    at = 8 if is_big else 4
    for _ in range(most + 1):
        if at + offset_of.size > len(data):
            return False
        (page,) = offset_of.unpack_from(data, at)
        if not page or page + count_of.size > len(data):
            return False  # the end, or damaged: whoever reads it says so
        (entries,) = count_of.unpack_from(data, page)
        at = page + count_of.size + entries * entry_bytes
    return True


def check(data: bytes, page: Page) -> list[str]:
    """Check JPEG streams, whose missing pixels libtiff does not tell."""
    detail: _Detail = page.detail
    if int(detail.page.compression) == _JPEG:
        _check_jpegs(data, detail.page)
    return []


def decode(data: bytes, page: Page) -> Image:
    """Decode one page: gray, or BGR, and not turned yet."""
    detail: _Detail = page.detail
    if detail.by_opencv:
        return _decode_by_opencv(data, page, detail)
    return _to_bgr(tiff_bytes.read_samples(data, detail.page), detail.page)


def _require_page(page: Any) -> tifffile.TiffPage:
    if not isinstance(page, tifffile.TiffPage):
        raise FormatError("its pages cannot be told apart; save it again with another program")
    return page


def _check_hidden_pages(page: tifffile.TiffPage, found: int) -> None:
    """Refuse a file that has more images than pages, which only its description tells."""
    description = page.description
    stacked = [
        int(line.removeprefix("images=").strip() or 1)
        for line in description.splitlines()
        if description.startswith("ImageJ=") and line.startswith("images=")
    ]
    if (stacked and stacked[0] > found) or '"truncated": true' in description:
        raise FormatError(
            f"it is a stack of images behind {found} page, which only its own program reads; "
            "save each image as a page of its own"
        )


def _page(data: bytes, page: tifffile.TiffPage, index: int, left_out: int) -> Page:
    _check_size(page)
    _check_tags(page)
    bits, photometric = int(page.bitspersample), int(page.photometric)
    channels = 1 if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) else 3
    exif, exif_notes = exif_of(data, page)
    notes = [*_notes(page), *exif_notes]
    if left_out:
        notes.append(f"reduced copies or masks in the file left out: {left_out}")
    by_opencv = int(page.compression) in (*_FAX, _JPEG) or photometric == _YCBCR
    return Page(
        size=(page.imagelength, page.imagewidth),
        channels=channels,
        dtype=_dtype(page, bits),
        orientation=_orientation(page),
        notes=tuple(notes),
        metadata=_metadata(page, exif),
        stored_bytes=-(-page.samplesperpixel * max(bits, 8) // 8),
        detail=_Detail(page, index, by_opencv),
    )


def _check_size(page: tifffile.TiffPage) -> None:
    if page.imagewidth < 1 or page.imagelength < 1:
        raise FormatError(
            f"it has {page.imagewidth}x{page.imagelength} pixels, so there are no pixels"
        )
    if page.imagedepth > 1:
        raise FormatError(f"it is a volume of {page.imagedepth} layers; save each as a page")
    if not page.dataoffsets or not page.databytecounts:
        raise FormatError("it has no pixel data; it is damaged, or was never finished")


def _check_tags(page: tifffile.TiffPage) -> None:
    """Raise FormatError, which names the tag's meaning, for a page that cannot be read right."""
    photometric, codec = int(page.photometric), int(page.compression)
    if photometric in _OTHER_COLOURS:
        raise FormatError(f"it holds {_OTHER_COLOURS[photometric]}; {_WAY_OUT}")
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR):
        raise FormatError(f"its colours are of kind {photometric}, which is not known; {_WAY_OUT}")
    if codec not in tiff_bytes.CODECS and codec not in (*_FAX, _JPEG):
        name = _OTHER_CODECS.get(codec, "unknown")
        raise FormatError(
            f"its compression is {name} (number {codec}), which is not read in a TIFF; "
            "save it with LZW, deflate or no compression"
        )
    if isinstance(page.bitspersample, tuple):
        raise FormatError(f"its channels have different bits, {page.bitspersample}; {_WAY_OUT}")
    _check_samples(page, photometric)
    _check_depth(page, photometric)
    if codec in (*_FAX, _JPEG) or photometric == _YCBCR:
        _check_for_opencv(page)


def _check_samples(page: tifffile.TiffPage, photometric: int) -> None:
    needed = _colour_samples(photometric)
    count = page.samplesperpixel
    if count < needed:
        raise FormatError(f"it has {count} channels, and its colours need {needed}; it is damaged")
    if needed == 1 and count > 1 and _alpha(page) is None:
        raise FormatError(
            f"it has {count} channels that are no colours; save each as an image, or three as RGB"
        )


def _check_depth(page: tifffile.TiffPage, photometric: int) -> None:
    bits, form = int(page.bitspersample), int(page.sampleformat)
    if form == _SIGNED:
        raise FormatError(f"it holds {bits}-bit signed integers; save it as 16-bit unsigned")
    if form == _FLOAT:
        if bits not in (16, 32, 64):
            raise FormatError(f"it holds {bits}-bit floating point numbers; save it with 32 bits")
        if photometric not in (_BLACK_IS_ZERO, _RGB):
            raise FormatError("it holds floating point numbers that are no gray and no RGB values")
        return
    if form not in (_UNSIGNED, _VOID):
        raise FormatError(f"it holds complex numbers (sample format {form}); {_WAY_OUT}")
    if not 1 <= bits <= 16:
        raise FormatError(
            f"it holds {bits}-bit integers; save it with 8 or 16 bits, or as 32-bit floating point"
        )
    if photometric == _PALETTE and (bits > 8 or page.colormap is None):
        raise FormatError(f"it has a palette for {bits} bits, or none; {_WAY_OUT}")


def _check_for_opencv(page: tifffile.TiffPage) -> None:
    """Refuse what libtiff's conversion to RGB leaves wrong."""
    codec, bits = int(page.compression), int(page.bitspersample)
    if codec in _FAX and (bits != 1 or page.samplesperpixel != 1):
        raise FormatError("its fax compression needs one bit per pixel; it is damaged")
    if codec not in _FAX and bits != 8:
        raise FormatError(f"it is JPEG or YCbCr with {bits} bits; save it with 8 bits")
    if page.samplesperpixel not in (1, 3) or int(page.photometric) == _CMYK:
        raise FormatError("it is JPEG or YCbCr with an extra channel or CMYK; save it as RGB")
    if int(page.planarconfig) != 1:
        raise FormatError("it is JPEG or YCbCr with its channels apart; save it interleaved")


def _colour_samples(photometric: int) -> int:
    return {_RGB: 3, _YCBCR: 3, _CMYK: 4}.get(photometric, 1)


def _alpha(page: tifffile.TiffPage) -> int | None:
    """Return the kind of the first extra channel if it is alpha."""
    extra = [int(kind) for kind in page.extrasamples]
    is_alpha = bool(extra) and extra[0] in (_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA)
    return extra[0] if is_alpha else None


def _dtype(page: tifffile.TiffPage, bits: int) -> str:
    if int(page.sampleformat) == _FLOAT:
        return "float32"
    return "uint8" if bits <= 8 else "uint16"


def _notes(page: tifffile.TiffPage) -> Iterator[str]:
    alpha, photometric = _alpha(page), int(page.photometric)
    extra = page.samplesperpixel - _colour_samples(photometric)
    if alpha == _ASSOCIATED_ALPHA:
        yield "associated alpha divided out and dropped"
    elif alpha is not None:
        yield "alpha channel dropped"
    if others := extra - (alpha is not None):
        yield f"{others} extra channel{'s' * (others > 1)} dropped, of no known meaning"
    if photometric == _CMYK:
        yield "CMYK converted to BGR"
    bits = int(page.bitspersample)
    if int(page.sampleformat) == _FLOAT:
        if bits == 64:
            yield "64-bit floating point rounded to 32 bits"
    elif 8 < bits < 16:
        yield f"{bits}-bit values shifted to 16 bits"
    yield from read_packet(_bytes_of(page, _XMP_TAG))[1]
    if any(tag in page.tags for tag in _GEO_TAGS):
        yield "georeference dropped"


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(_ORIENTATION_TAG)
    value = tag.value if tag is not None else 1
    return int(value) if isinstance(value, int) else 1


def _metadata(page: tifffile.TiffPage, exif: bytes) -> Metadata:
    icc = page.tags.get(34675)
    value = icc.value if icc is not None else b""
    unit = page.tags.get(296)
    factor = _INCH_PER_UNIT.get(int(unit.value) if unit is not None else 2)
    dpi = None
    if factor is not None and 282 in page.tags and 283 in page.tags:
        x, y = page.resolution
        dpi = (x / factor, y / factor)
    return Metadata(
        icc=bytes(value) if isinstance(value, bytes) else b"",
        exif=exif,
        dpi=dpi,
        xmp=read_packet(_bytes_of(page, _XMP_TAG))[0],
        iptc=_iptc(page),
    )


def _iptc(page: tifffile.TiffPage) -> bytes:
    """Return IPTC records, from their own tag or from Photoshop's."""
    records = _bytes_of(page, _IPTC_TAG).rstrip(b"\0")  # of four bytes each, in some files
    return records or iptc_records(_bytes_of(page, _PHOTOSHOP_TAG))


def _bytes_of(page: tifffile.TiffPage, code: int) -> bytes:
    """Return the value of a tag as the file has it; empty if there is none of bytes."""
    tag = page.tags.get(code)
    if tag is None:
        return b""
    value = tag.value
    if isinstance(value, str):
        return value.encode()
    letter = _NUMBERS.get(int(tag.dtype))
    if isinstance(value, tuple) and letter is not None:
        return struct.pack(f"{page.parent.byteorder}{len(value)}{letter}", *value)
    return bytes(value) if isinstance(value, bytes) else b""


def _decode_by_opencv(data: bytes, page: Page, detail: _Detail) -> Image:
    kind = cv2.IMREAD_GRAYSCALE if page.channels == 1 else cv2.IMREAD_COLOR_BGR
    kind |= cv2.IMREAD_IGNORE_ORIENTATION
    buffer = np.frombuffer(_not_turned(data, detail.page), np.uint8)
    if detail.index == 0:
        image = cv2.imdecode(buffer, kind)
    else:
        _, found = cv2.imdecodemulti(buffer, kind, range=(detail.index, detail.index + 1))
        image = found[0] if found else None
    if image is None:
        raise FormatError("libtiff cannot decode it; it is damaged, or of a rare kind")
    return image


def _not_turned(data: bytes, page: tifffile.TiffPage) -> bytes | bytearray:
    """Return the file with a page that is not turned: OpenCV turns pages that libtiff converts."""
    tag = page.tags.get(_ORIENTATION_TAG)
    if tag is None or _orientation(page) == 1:
        return data
    changed = bytearray(data)
    size = tag.valuebytecount
    order: Literal["little", "big"] = "little" if page.parent.byteorder == "<" else "big"
    changed[tag.valueoffset : tag.valueoffset + size] = (1).to_bytes(size, order)
    return changed


def _check_jpegs(data: bytes, page: tifffile.TiffPage) -> None:
    tables = page.jpegtables or b""
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        check_stream(tables[:-2] + data[start : start + size][2 if tables else 0 :])


def _to_bgr(samples: Image, page: tifffile.TiffPage) -> Image:
    """Return gray or BGR of (height, width, samples) values as they are stored."""
    photometric, bits = int(page.photometric), int(page.bitspersample)
    if int(page.sampleformat) == _FLOAT:
        samples = samples.astype(np.float32, copy=False)
    if photometric == _PALETTE:
        return _look_up(samples[..., 0], page)
    if _alpha(page) == _ASSOCIATED_ALPHA:
        colours = _colour_samples(photometric)
        samples = _divide(samples[..., :colours], samples[..., colours], bits)
    if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        gray = samples[..., 0]
        if photometric == _WHITE_IS_ZERO:
            gray = ((1 << bits) - 1 - gray.astype(np.uint32)).astype(gray.dtype)
        return np.ascontiguousarray(_widen(gray, bits))
    if photometric == _CMYK:
        samples = _cmyk_to_rgb(samples, bits)
    return np.ascontiguousarray(_widen(samples[..., 2::-1], bits))


def _widen(values: Image, bits: int) -> Image:
    """Scale values of less than 8 bits to 8 bits, and shift others to 16 bits as OpenCV does."""
    if bits in (8, 16, 32, 64):
        return values
    if bits > 8:
        return values << (16 - bits)
    most = (1 << bits) - 1
    table = np.array([(255 * value + most // 2) // most for value in range(most + 1)], np.uint8)
    return table[values]


def _look_up(indices: Image, page: tifffile.TiffPage) -> Image:
    palette = np.asarray(page.colormap, np.uint16)
    # The specification asks for 16 bits; some programs write 8.
    eight = (palette >> 8 if palette.max(initial=0) > 255 else palette).astype(np.uint8)
    if int(indices.max(initial=0)) >= eight.shape[1]:
        raise FormatError("a pixel is beyond its palette; it is damaged")
    return np.ascontiguousarray(eight[::-1].T)[indices]


def _divide(colours: Image, alpha: Image, bits: int) -> Image:
    """Undo the multiplication of colours by alpha; where alpha is 0, the colour is black."""
    opaque = alpha[..., np.newaxis]
    if colours.dtype.kind == "f":
        return np.divide(colours, opaque, out=np.zeros_like(colours), where=opaque > 0)
    most = (1 << bits) - 1
    divided = np.empty_like(colours)
    for row in range(len(colours)):  # row by row, since products need wider integers
        wide = colours[row].astype(np.uint32) * most // np.maximum(opaque[row], 1)
        divided[row] = np.where(opaque[row] > 0, np.minimum(wide, most), 0)
    return divided


def _cmyk_to_rgb(samples: Image, bits: int) -> Image:
    """Convert as libtiff does."""
    most = (1 << bits) - 1
    rgb = np.empty((*samples.shape[:2], 3), samples.dtype)
    for row in range(len(samples)):
        ink = most - samples[row, :, :4].astype(np.uint32)
        rgb[row] = ink[:, :3] * ink[:, 3:] // most
    return rgb
