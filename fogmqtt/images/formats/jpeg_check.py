"""Finds out whether a JPEG stream is whole, and of a kind that is read.

The markers tell the kind, and which coefficients the scans bring. libjpeg-turbo decodes the stream
once at an eighth of its size, and its first warning is an error here: libjpeg fills what is missing
with gray, and only its warning says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import simplejpeg

from fogmqtt.images.formats.page import FormatError
from fogmqtt.images.formats.xmp import (
    EXTENSION_PREFIX,
    PHOTOSHOP_PREFIX,
    XMP_PREFIX,
    iptc_records,
)

_EOI: Final = b"\xff\xd9"
_SOS, _APP0, _APP1, _APP2, _APP13, _APP14 = 0xDA, 0xE0, 0xE1, 0xE2, 0xED, 0xEE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_UNREAD_FRAMES: Final = {
    0xC3: "lossless JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "hierarchical JPEG",
    0xCB: "lossless JPEG with arithmetic coding",
    0xCD: "hierarchical JPEG",
    0xCE: "hierarchical JPEG",
    0xCF: "hierarchical JPEG",
}
_PROGRESSIVE: Final = frozenset((0xC2, 0xCA))
_LAST_COEFFICIENT: Final = 63
#: Ends the data of a scan: a marker that is neither a stuffed byte nor a restart.
_NEXT_MARKER: Final = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_STRAY: Final = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
#: Bytes between the last pixel and the end marker that are taken for padding of a camera.
_MOST_STRAY: Final = 16
#: More scans than any program writes: progressive files have 3 to 20. Each costs libjpeg a walk
#: over all coefficients, so 400 kB could take minutes.
MAX_SCANS: Final = 100
#: Warnings of libjpeg that concern no pixel.
_HARMLESS: Final = ("Unknown Adobe color transform", "Invalid SOS parameters for sequential")


@dataclass(slots=True)
class JpegStream:
    """What the markers of a JPEG stream say."""

    #: Height and width.
    size: tuple[int, int] = (0, 0)
    components: int = 0
    scans: int = 0
    #: The second byte of the frame's marker.
    frame: int = 0
    #: Whether the end marker is there, and where the stream ends.
    is_ended: bool = False
    end: int = 0
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    has_more_xmp: bool = False
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    #: For each component, the lowest bit of each coefficient that a scan has brought.
    received: dict[int, list[int | None]] = field(default_factory=dict)
    is_mpo: bool = False


def parse(data: bytes) -> JpegStream:
    """Walk the markers of a stream. Raises FormatError for a kind that is not read."""
    stream, at = JpegStream(), 2
    icc: dict[int, bytes] = {}
    while (found := _NEXT_MARKER.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        if marker == _EOI[1]:
            stream.is_ended, stream.end = True, at
            break
        if marker == 0xD8 or marker == 0x01:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            break
        body = data[at + 2 : at + length]
        _read_segment(stream, marker, body, icc)
        at += length
    if not stream.frame:
        raise FormatError("it has no frame header; it is truncated or damaged")
    stream.icc = b"".join(icc[number] for number in sorted(icc))
    return stream


def check_stream(data: bytes, stream: JpegStream | None = None) -> list[str]:
    """Return notes about harmless oddities.

    Raises FormatError if pixels are missing, or if the stream is of a kind that is not read.
    """
    stream = stream or parse(data)
    _check_scans(stream)
    whole = data[: stream.end] if stream.is_ended else data + _EOI
    try:
        simplejpeg.decode_jpeg(
            whole,
            "CMYK" if stream.components == 4 else "GRAY",
            min_height=1,
            min_width=1,
            min_factor=8,
        )
    except ValueError as problem:
        return _judge(str(problem))
    return []


def with_end(data: bytes, stream: JpegStream) -> bytes:
    """Return the data with an end marker, which libjpeg wants and some cameras leave out."""
    return data if stream.is_ended else data + _EOI


def _judge(warning: str) -> list[str]:
    stray = _STRAY.search(warning)
    if stray is not None and int(stray[1]) <= _MOST_STRAY:
        return [f"{stray[1]} stray bytes before its end"]
    if warning.startswith(_HARMLESS):
        return [f"libjpeg says: {warning}"]
    if "premature end" in warning.lower():
        raise FormatError(f"it is truncated: pixels are missing ({warning}); copy it again")
    raise FormatError(f"it is damaged ({warning}); copy it again, or save it again")


def _read_segment(stream: JpegStream, marker: int, body: bytes, icc: dict[int, bytes]) -> None:
    if marker in _FRAMES and not stream.frame:
        _read_frame(stream, marker, body)
    elif marker == _SOS:
        stream.scans += 1
        if stream.scans > MAX_SCANS:
            raise FormatError(f"it has more than {MAX_SCANS} scans; save it again")
        _read_scan(stream, body)
    elif marker == _APP1 and body.startswith(b"Exif\0\0") and not stream.exif:
        stream.exif = body
    elif marker == _APP1 and body.startswith(XMP_PREFIX) and not stream.xmp:
        stream.xmp = body.removeprefix(XMP_PREFIX)
    elif marker == _APP1 and body.startswith(EXTENSION_PREFIX):
        stream.has_more_xmp = True
    elif marker == _APP13 and body.startswith(PHOTOSHOP_PREFIX) and not stream.iptc:
        stream.iptc = iptc_records(body.removeprefix(PHOTOSHOP_PREFIX))
    elif marker == _APP2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
        icc.setdefault(body[12], body[14:])
    elif marker == _APP2 and body.startswith(b"MPF\0"):
        stream.is_mpo = True
    elif marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 12:
        unit, x, y = body[7], int.from_bytes(body[8:10], "big"), int.from_bytes(body[10:12], "big")
        factor = {1: 1.0, 2: 2.54}.get(unit)
        if factor is not None and x and y:
            stream.dpi = (x * factor, y * factor)


def _read_frame(stream: JpegStream, marker: int, body: bytes) -> None:
    if marker in _UNREAD_FRAMES:
        raise FormatError(f"it is a {_UNREAD_FRAMES[marker]}; save it as a usual JPEG or as PNG")
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise FormatError("its frame header is damaged")
    if body[0] != 8:
        raise FormatError(f"it is a {body[0]}-bit JPEG; save it with 8 bits, or as 16-bit PNG")
    stream.frame = marker
    stream.size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    stream.components = body[5]
    for component in range(body[5]):
        stream.received[body[6 + 3 * component]] = [None] * (_LAST_COEFFICIENT + 1)


def _read_scan(stream: JpegStream, body: bytes) -> None:
    if not body or len(body) < 4 + 2 * body[0]:
        return
    count = body[0]
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    if stream.frame not in _PROGRESSIVE:
        # A sequential scan brings all; some cameras write other numbers here.
        first, last, bits = 0, _LAST_COEFFICIENT, 0
    for component in range(count):
        received = stream.received.get(body[1 + 2 * component])
        if received is None:
            continue
        for coefficient in range(first, min(last, _LAST_COEFFICIENT) + 1):
            received[coefficient] = bits & 15


def _check_scans(stream: JpegStream) -> None:
    """Raise FormatError if no scan brings a component, or the finest bits of a coefficient.

    libjpeg does not warn if whole scans are missing.
    """
    for received in stream.received.values():
        if received[0] is None:
            raise FormatError("it is truncated: a scan is missing; copy it again")
        if any(bits != 0 for bits in received):
            raise FormatError("its last scans are missing, so it is blurred; copy it again")
