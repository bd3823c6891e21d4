"""XMP packets and IPTC records of image files: descriptions, keywords, rights."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

#: The beginnings of the segments of a JPEG with a packet, with more of a packet, and of Photoshop.
XMP_PREFIX: Final = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION_PREFIX: Final = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP_PREFIX: Final = b"Photoshop 3.0\0"
#: The keyword of a packet in a PNG.
XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
#: The kind of Photoshop's resource with IPTC records.
_IPTC: Final = 0x0404
_RESOURCE: Final = b"8BIM"
#: The longest packet that is kept.
_MAX_PACKET: Final = 16 << 20
#: How a packet gives the orientation, as an attribute or as an element.
_ORIENTATION: Final = re.compile(
    rb"(tiff:Orientation\s*=\s*[\"']|<tiff:Orientation>\s*)[0-9](?=\s*[\"'<])"
)


def read_packet(packet: bytes | None, *, is_whole: bool = True) -> tuple[bytes, tuple[str, ...]]:
    """Return a packet without another orientation than 1, since pixels are turned, and notes.

    A packet that is no UTF-8 text, or only a part of one, is dropped.
    """
    if not packet:
        return b"", ()
    try:
        packet.decode("utf-8")
        is_text = b"\0" not in packet
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        return b"", ("XMP data dropped: they are no UTF-8 text",)
    if not is_whole:
        return b"", ("XMP data dropped: they are in several parts",)
    return _ORIENTATION.sub(rb"\g<1>1", packet), ()


def png_packet(body: bytes | memoryview) -> bytes:
    """Return the packet in an iTXt chunk; empty if it holds none."""
    keyword, _, rest = bytes(body).partition(b"\0")
    if keyword != XMP_KEYWORD:
        return b""
    is_compressed = rest[:1] == b"\1"
    _, _, rest = rest[2:].partition(b"\0")  # the language
    text = rest.partition(b"\0")[2]  # behind the translated keyword
    if not is_compressed:
        return text
    try:
        return zlib.decompressobj().decompress(text, _MAX_PACKET)
    except zlib.error:
        return b""


def iptc_records(resources: bytes) -> bytes:
    """Return the IPTC records in Photoshop's resources; empty if there are none."""
    return next((body for kind, body in _walk(resources) if kind == _IPTC), b"")


def photoshop_resources(records: bytes) -> bytes:
    """Return resources of Photoshop that hold IPTC records."""
    padding = bytes(len(records) % 2)
    size = len(records).to_bytes(4, "big")
    return _RESOURCE + _IPTC.to_bytes(2, "big") + b"\0\0" + size + records + padding


def _walk(resources: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the content of each resource, as far as they are whole."""
    at = 0
    while resources[at : at + 4] == _RESOURCE and at + 7 <= len(resources):
        kind = int.from_bytes(resources[at + 4 : at + 6], "big")
        name = resources[at + 6] + 1
        start = at + 6 + name + name % 2
        size = int.from_bytes(resources[start : start + 4], "big")
        body = resources[start + 4 : start + 4 + size]
        if len(body) < size:
            return
        yield kind, body
        at = start + 4 + size + size % 2
