"""Encodes results as image files, with the metadata of the images that they were made of."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from fogmqtt.errors import ImageError
from fogmqtt.images.cv import cv2
from fogmqtt.images.formats import tiff_exif
from fogmqtt.images.formats.xmp import (
    PHOTOSHOP_PREFIX,
    XMP_KEYWORD,
    XMP_PREFIX,
    photoshop_resources,
)
from fogmqtt.images.metadata import EXIF_PREFIX, Metadata, fits
from fogmqtt.images.result_format import ResultFormat
from fogmqtt.images.spec import Image, Spec

#: The dtypes that each kind of file can hold.
_DTYPES: Final = {
    "png": ("uint8", "uint16"),
    "jpeg": ("uint8",),
    "webp": ("uint8",),
    "bmp": ("uint8",),
    "tiff": ("uint8", "uint16", "int16", "int32", "float32", "float64"),
}
#: The longest side that each kind of file can have here, in pixels, and why.
_LONGEST_SIDES: Final = {
    "png": (1_000_000, "libpng's limit"),
    "jpeg": (65_500, "libjpeg's limit"),
    "webp": (16_383, "the format's limit"),
}
_USUAL_QUALITY: Final = 95
#: A quality over 100 is lossless.
_LOSSLESS_WEBP: Final = 101
#: Deflate's fastest level: the others take several times as long for a few percent.
_DEFLATE_LEVEL: Final = 1
_INCHES_PER_METRE: Final = 1 / 0.0254
#: The most bytes of a JPEG's segment beside its length.
_MAX_SEGMENT: Final = 65_533
_ICC_PREFIX: Final = b"ICC_PROFILE\0"
_XMP_TAG: Final = 700
_IPTC_TAG: Final = 33723
_NO_METADATA: Final = Metadata()
#: The offsets of a usual TIFF end at 4 GiB; with more pixels it is a BigTIFF.
_MAX_USUAL_TIFF: Final = (1 << 32) - (1 << 26)


class EncodedFile(Struct, frozen=True):
    """The bytes of a file, and sentences about metadata that it does not hold."""

    data: bytes
    notes: tuple[str, ...] = ()


def encode(
    images: Sequence[Image], form: ResultFormat, metadata: Sequence[Metadata] = ()
) -> EncodedFile:
    """Return a file with these images; more than one needs a TIFF.

    Raises ImageError for images that such a file cannot hold.
    """
    for image in images:
        _check_dtype(image, form)
        _check_sides(image, form)
    if len(images) > 1 and form.kind != "tiff":
        raise ImageError(
            f"a {form.kind} file holds one image, and this result has {len(images)} pages; "
            "write .tiff, or choose a page"
        )
    kept, notes = [], list[str]()
    for number, image in enumerate(images):
        given = metadata[number] if number < len(metadata) else _NO_METADATA
        kept.append(_keep(given, image, form, notes, is_big=_is_big(images)))
    if form.kind == "tiff":
        data = _encode_tiff(images, form, kept)
    else:
        data = _with_metadata(_encode_by_opencv(images[0], form), form, kept[0])
    return EncodedFile(data, tuple(dict.fromkeys(notes)))


def _check_dtype(image: Image, form: ResultFormat) -> None:
    if image.dtype.name not in _DTYPES[form.kind]:
        raise ImageError(
            f"{form.kind} files cannot hold a {Spec.of(image)} image; {_suggestion(image)}"
        )


def _check_sides(image: Image, form: ResultFormat) -> None:
    longest, reason = _LONGEST_SIDES.get(form.kind, (0, ""))
    if longest and max(image.shape[:2]) > longest:
        raise ImageError(
            f"the result is {image.shape[1]}x{image.shape[0]} pixels, and a side of a {form.kind} "
            f"file has at most {longest} ({reason}); write .tiff"
        )


def _suggestion(image: Image) -> str:
    if image.dtype == np.uint16:
        return "write .png or .tiff, or end the pipeline with 'to8bit'"
    return "write .tiff, or end the pipeline with an operator that gives 8 bits"


def _keep(
    given: Metadata, image: Image, form: ResultFormat, notes: list[str], *, is_big: bool
) -> Metadata:
    """Return what of the metadata the file can hold; add notes about the rest."""
    icc, exif, dpi, xmp, iptc = given.icc, given.exif, given.dpi, given.xmp, given.iptc
    channels = image.shape[2] if image.ndim == 3 else 1
    if icc and not fits(icc, channels):
        notes.append(f"ICC profile dropped: it is not one of {Spec.of(image)} images")
        icc = b""
    if icc and form.kind == "bmp":
        notes.append("ICC profile dropped: a bmp file holds none")
        icc = b""
    if exif and (problem := _exif_problem(exif, form, is_big=is_big)):
        notes.append(f"EXIF data dropped: {problem}")
        exif = b""
    if xmp and (form.kind == "bmp" or _is_too_long(XMP_PREFIX + xmp, form)):
        notes.append(f"XMP data dropped: a {form.kind} file does not hold them")
        xmp = b""
    resources = PHOTOSHOP_PREFIX + photoshop_resources(iptc) if iptc else b""
    if iptc and (form.kind not in ("jpeg", "tiff") or _is_too_long(resources, form)):
        notes.append(f"IPTC data dropped: a {form.kind} file does not hold them")
        iptc = b""
    if dpi and form.kind == "webp":
        notes.append("resolution dropped: a webp file holds none")
        dpi = None
    return Metadata(icc, exif, dpi, xmp, iptc)


def _exif_problem(exif: bytes, form: ResultFormat, *, is_big: bool) -> str:
    """Return why a file cannot hold EXIF data; empty if it can."""
    if form.kind == "bmp" or _is_too_long(EXIF_PREFIX + exif, form):
        return f"a {form.kind} file does not hold them"
    if form.kind == "tiff" and is_big:
        return "a tiff file of more than 4 GB does not hold them here"
    if form.kind == "tiff" and not tiff_exif.can_hold(exif):
        return "they are damaged"
    return ""


def _is_big(images: Sequence[Image]) -> bool:
    return sum(image.nbytes for image in images) > _MAX_USUAL_TIFF


def _is_too_long(body: bytes, form: ResultFormat) -> bool:
    return form.kind == "jpeg" and len(body) > _MAX_SEGMENT


def _encode_by_opencv(image: Image, form: ResultFormat) -> bytes:
    level = form.compression
    options: dict[str, list[int]] = {
        "png": [cv2.IMWRITE_PNG_COMPRESSION, level] if isinstance(level, int) else [],
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, form.quality or _USUAL_QUALITY],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, form.quality or _LOSSLESS_WEBP],
        "bmp": [],
    }
    try:
        is_encoded, data = cv2.imencode(form.suffix, image, options[form.kind])
    except cv2.error as problem:
        raise ImageError(f"cannot write {Spec.of(image)} as {form.kind}: {problem.err}") from None
    if not is_encoded:
        raise ImageError(f"cannot write {Spec.of(image)} as {form.kind}")
    return bytes(data)


def _encode_tiff(
    images: Sequence[Image], form: ResultFormat, metadata: Sequence[Metadata]
) -> bytes:
    import tifffile  # a job without a TIFF has no use for it

    is_plain = form.compression == "none"
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, bigtiff=_is_big(images), byteorder="<") as file:
        for image, kept in zip(images, metadata, strict=True):
            file.write(
                image if image.ndim == 2 else image[..., ::-1],
                photometric="minisblack" if image.ndim == 2 else "rgb",
                compression=None if is_plain else "adobe_deflate",
                compressionargs=None if is_plain else {"level": _DEFLATE_LEVEL},
                iccprofile=kept.icc or None,
                resolution=kept.dpi,
                resolutionunit="INCH" if kept.dpi else None,
                extratags=_extra_tags(kept),
                metadata=None,
                software=False,
            )
    tiff_exif.write_links(stream, [kept.exif for kept in metadata])
    return stream.getvalue()


def _extra_tags(kept: Metadata) -> list[tiff_exif.ExtraTag]:
    """Return the tags of XMP, IPTC and EXIF data, on this page only."""
    values = ((_XMP_TAG, kept.xmp), (_IPTC_TAG, kept.iptc))
    tags: list[tiff_exif.ExtraTag] = [
        (code, 1, len(one), one, False) for code, one in values if one
    ]
    return tags + tiff_exif.extra_tags(kept.exif)


def _with_metadata(data: bytes, form: ResultFormat, kept: Metadata) -> bytes:
    if kept == _NO_METADATA:
        return data
    return {"png": _in_png, "jpeg": _in_jpeg, "webp": _in_webp, "bmp": _in_bmp}[form.kind](
        data, kept
    )


def _in_png(data: bytes, kept: Metadata) -> bytes:
    """Put chunks behind IHDR, which has a fixed length."""
    chunks = b""
    if kept.icc:
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(kept.icc))
    if kept.dpi:
        x, y = (round(value * _INCHES_PER_METRE) for value in kept.dpi)
        chunks += _png_chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
    if kept.exif:
        chunks += _png_chunk(b"eXIf", kept.exif)
    if kept.xmp:
        chunks += _png_chunk(b"iTXt", XMP_KEYWORD + bytes(5) + kept.xmp)
    return data[:33] + chunks + data[33:]


def _png_chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def _in_jpeg(data: bytes, kept: Metadata) -> bytes:
    """Put segments behind APP0, which OpenCV writes first, and the resolution into it."""
    end = 4 + int.from_bytes(data[4:6], "big")
    head = bytearray(data[:end])
    if kept.dpi:
        x, y = (min(65_535, max(1, round(value))) for value in kept.dpi)
        head[13:18] = struct.pack(">BHH", 1, x, y)
    segments = b""
    if kept.exif:
        segments += _jpeg_segment(0xE1, EXIF_PREFIX + kept.exif)
    if kept.xmp:
        segments += _jpeg_segment(0xE1, XMP_PREFIX + kept.xmp)
    if kept.iptc:
        segments += _jpeg_segment(0xED, PHOTOSHOP_PREFIX + photoshop_resources(kept.iptc))
    step = _MAX_SEGMENT - len(_ICC_PREFIX) - 2
    parts = [kept.icc[at : at + step] for at in range(0, len(kept.icc), step)]
    for number, part in enumerate(parts, 1):
        segments += _jpeg_segment(0xE2, _ICC_PREFIX + bytes([number, len(parts)]) + part)
    return bytes(head) + segments + data[end:]


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _in_webp(data: bytes, kept: Metadata) -> bytes:
    """Put the image into the extended form of the format, which has a place for metadata."""
    image = data[12:]
    flags = (0x20 if kept.icc else 0) | (0x08 if kept.exif else 0) | (0x04 if kept.xmp else 0)
    width, height = _webp_size(image)
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = _riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sizes)
    if kept.icc:
        body += _riff_chunk(b"ICCP", kept.icc)
    body += image
    if kept.exif:
        body += _riff_chunk(b"EXIF", kept.exif)
    if kept.xmp:
        body += _riff_chunk(b"XMP ", kept.xmp)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _webp_size(image: bytes) -> tuple[int, int]:
    """Return width and height of a VP8 or VP8L chunk."""
    if image[:4] == b"VP8L":
        packed = int.from_bytes(image[9:13], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", image, 14)
    return width & 0x3FFF, height & 0x3FFF


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _in_bmp(data: bytes, kept: Metadata) -> bytes:
    """Put the resolution into the header; nothing else has a place there."""
    assert kept.dpi is not None  # noqa: S101  # `_keep` left nothing else
    x, y = (round(value * _INCHES_PER_METRE) for value in kept.dpi)
    return data[:38] + struct.pack("<II", x, y) + data[46:]
