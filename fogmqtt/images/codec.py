"""Encodes arrays to bytes and decodes them without loss, for transfer.

| codec     | content                                         | images                       |
|-----------|-------------------------------------------------|------------------------------|
| raw       | the array's bytes, row-major, native endianness | all                          |
| png       | a PNG file                                      | uint8, uint16; 1, 3, 4 chan. |
| bitplanes | 1-bit planes of 255 and of 128, without zeros   | uint8 of 0, 128 and 255 only |

There is no JPEG: it changes pixels, and a result must equal OpenCV's bit for bit. The bytes to
decode come from other machines, so a decoder allocates no more memory than the bytes can fill.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from fogmqtt.errors import WireError

if TYPE_CHECKING:
    from fogmqtt.images.spec import Image

#: The values of undecided pixels and of edges in a three-state image (operators/edges/canny.py).
OPEN, EDGE = 128, 255

#: The size of the largest MQTT packet. No raw tile is larger, so no decoded tile may be larger.
MAX_BYTES = 268_435_455

_CODECS = ("raw", "png", "bitplanes")
#: The bytes of planes that are left out together if no bit of them is set. Most of an image has no
#: edges, and to deflate and inflate its zeros would take longer than all else.
_BLOCK = 64
_DTYPES = frozenset({"uint8", "int8", "uint16", "int16", "int32", "float32", "float64"})
#: The maximum compression ratio of Deflate. A message with a higher ratio announces a wrong size.
_DEFLATE_RATIO = 1032
_PNG_HEADER = struct.Struct(">8s4x4sIIBB")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 6: 4}

#: Height, width, channels.
TileShape = tuple[int, int, int]


def names() -> tuple[str, ...]:
    """Return the names of the codecs that `encode` and `decode` support."""
    return _CODECS


def png_holds(channels: int, dtype: str) -> bool:
    """Whether `png` can hold images of so many channels and this dtype."""
    return dtype in ("uint8", "uint16") and channels in _PNG_CHANNELS.values()


def encode_smaller(image: Image, codec: str) -> tuple[bytes | memoryview, str]:
    """Return the encoded image and its codec: `raw` instead of `png` if that is smaller."""
    data = encode(image, codec)
    if codec == "png" and len(data) >= image.nbytes:
        return encode(image, "raw"), "raw"
    return data, codec


def encode(image: Image, codec: str) -> bytes | memoryview:
    """Return the bytes of an image, (height, width) or (height, width, channels) of any dtype.

    `raw` returns a view of the memory of a contiguous image and copies any other. Raises WireError
    for an unknown codec and for an image that the codec cannot hold.
    """
    match codec:
        case "raw":
            return np.ascontiguousarray(image).data.cast("B")
        case "png":
            return _encode_png(image)
        case "bitplanes":
            return _encode_planes(image)
    raise _unknown(codec)


def decode(pixels: bytes | memoryview, codec: str, shape: TileShape, dtype: str) -> Image:
    """Return the encoded image of `shape` (height, width, channels) and `dtype`.

    An image of one channel has two dimensions. A `raw` image is a view of `pixels`, read-only if
    they are. Raises WireError unless the bytes hold exactly such an image.
    """
    if dtype not in _DTYPES:
        raise WireError(f"dtype {dtype!r} is unknown; known are {', '.join(sorted(_DTYPES))}")
    if min(shape) < 1:
        raise WireError(f"an image of shape {shape} has no pixels")
    if math.prod(shape) * np.dtype(dtype).itemsize > MAX_BYTES:
        raise WireError(
            f"a tile of shape {shape} {dtype} is over {MAX_BYTES} bytes; cut smaller tiles"
        )
    match codec:
        case "raw":
            return _decode_raw(pixels, shape, dtype)
        case "png":
            return _decode_png(pixels, shape, dtype)
        case "bitplanes":
            return _decode_planes(pixels, shape, dtype)
    raise _unknown(codec)


def _unknown(codec: str) -> WireError:
    return WireError(f"codec {codec!r} is unknown; known are {', '.join(_CODECS)}")


def _array_shape(shape: TileShape) -> tuple[int, ...]:
    return shape if shape[2] > 1 else shape[:2]


def _decode_raw(pixels: bytes | memoryview, shape: TileShape, dtype: str) -> Image:
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    got = memoryview(pixels).nbytes
    if got != expected:
        raise WireError(f"{got} bytes of pixels, but shape {shape} {dtype} needs {expected}")
    return np.frombuffer(pixels, dtype).reshape(_array_shape(shape))


def _encode_png(image: Image) -> bytes:
    from fogmqtt.images.cv import cv2

    channels = image.shape[2] if image.ndim == 3 else 1
    if not png_holds(channels, image.dtype.name):
        raise WireError(f"png cannot hold a {channels}-channel {image.dtype} image; use codec raw")
    # Level 1: compression should shorten the transfer, and a higher level costs more than it saves.
    is_encoded, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not is_encoded:
        raise WireError(f"OpenCV could not write a PNG of shape {image.shape} {image.dtype}")
    return data.tobytes()


def _decode_png(pixels: bytes | memoryview, shape: TileShape, dtype: str) -> Image:
    from fogmqtt.images.cv import cv2

    _check_png(pixels, shape, dtype)
    try:
        image = cv2.imdecode(np.frombuffer(pixels, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as problem:
        raise WireError(f"the PNG cannot be decoded: {problem.err}") from None
    if image is None:
        raise WireError("the PNG cannot be decoded")
    if image.shape != _array_shape(shape) or image.dtype != dtype:
        raise WireError(
            f"the PNG is of {image.shape} {image.dtype}, but {shape} {dtype} was announced"
        )
    return image


def _check_png(pixels: bytes | memoryview, shape: TileShape, dtype: str) -> None:
    """Compare the PNG header with the announced shape before any memory is allocated."""
    if len(pixels) < _PNG_HEADER.size:
        raise WireError(f"{len(pixels)} bytes are no PNG")
    signature, chunk, width, height, depth, kind = _PNG_HEADER.unpack_from(pixels)
    if signature != _PNG_SIGNATURE or chunk != b"IHDR":
        raise WireError("the pixels are no PNG")
    found = (height, width, _PNG_CHANNELS.get(kind, 0)), f"uint{depth}"
    if found != (shape, dtype):
        raise WireError(f"the PNG is of {found[0]} {found[1]}, but {shape} {dtype} was announced")
    if bytes(pixels[-8:-4]) != b"IEND":
        raise WireError("the PNG is truncated")
    _check_ratio(len(pixels), math.prod(shape) * np.dtype(dtype).itemsize)


def _check_ratio(compressed: int, expected: int) -> None:
    if expected > _DEFLATE_RATIO * (compressed + 64):
        raise WireError(f"{compressed} bytes cannot hold the announced {expected} bytes")


def _encode_planes(image: Image) -> bytes:
    if image.ndim != 2 or image.dtype != np.uint8:
        raise WireError(f"bitplanes cannot hold a {image.shape} {image.dtype} image; use codec raw")
    blocks = _pack(image).reshape(-1, _BLOCK)
    used = _used(blocks)
    # Run lengths only: on edges a fifth smaller than level 1, in half its time.
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    data = stream.compress(np.packbits(used).data) + stream.compress(blocks[used].data)
    return data + stream.flush()


def _used(blocks: Image) -> Image:
    """Return which blocks have a bit that is set."""
    words = blocks.view(np.uint64)
    # Several times faster than a reduction over so short an axis.
    some = words[:, 0] | words[:, 1]
    for place in range(2, words.shape[1]):
        some |= words[:, place]
    used: Image = some != 0
    return used


def _blocks(height: int, width: int) -> int:
    """Return the number of blocks that hold the two planes of an image."""
    return -(-2 * ((height + 7) // 8) * width // _BLOCK)


def _pack(image: Image) -> Image:
    """Return the plane of the edges, then that of the open pixels, padded with 0 to whole blocks.

    A byte holds eight pixels of a column, the uppermost in the highest bit. A line in an image
    touches fewer such bytes than bytes that hold pixels of a row. Raises WireError if a pixel is
    not 0, 128 or 255.

    255 has all bits, 128 only the highest, so whole rows are masked, shifted and combined.
    """
    rows = _eights(image)
    packed: Image = np.zeros(_blocks(*image.shape) * _BLOCK, np.uint8)
    edge, either = _planes(packed, *image.shape)
    np.multiply(rows[:, 0], np.uint8(OPEN), out=edge)  # the lowest bit becomes the highest
    np.bitwise_and(rows[:, 0], OPEN, out=either)
    sums = rows[:, 0] + np.uint8(1)
    bits = np.empty_like(edge)
    for place in range(1, 8):
        row = rows[:, place]
        edge |= np.bitwise_and(row, OPEN >> place, out=bits)
        either |= np.right_shift(np.bitwise_and(row, OPEN, out=bits), place, out=bits)
        sums |= np.add(row, np.uint8(1), out=bits)
    # One more than a value is 0, 1 or 129, or 128 for 127: that alone is an edge but not either.
    if (sums & 0x7E).any() or (edge & ~either).any():
        raise WireError(f"bitplanes hold only the values 0, {OPEN} and {EDGE}; use codec raw")
    either ^= edge
    return packed


def _planes(packed: Image, height: int, width: int) -> Image:
    """Return the planes of the edges and of the open pixels, (2, groups, width), as a view."""
    groups = (height + 7) // 8
    return packed[: 2 * groups * width].reshape(2, groups, width)


def _eights(image: Image) -> Image:
    """Return the rows of an image in groups of eight: (groups, 8, width), padded with 0."""
    height, width = image.shape
    groups = (height + 7) // 8
    if height % 8:
        padded: Image = np.zeros((groups * 8, width), np.uint8)
        padded[:height] = image
        image = padded
    return image.reshape(groups, 8, width)


def _unpack(planes: Image, height: int) -> Image:
    """Return the image of an edge plane and an open plane."""
    edge, open_ = planes
    groups, width = edge.shape
    image: Image = np.empty((groups * 8, width), np.uint8)
    bits = np.empty_like(edge)
    has_open = open_.any()
    for place in range(8):
        row = image[place::8]
        # numpy multiplies several times faster than it shifts to the left. A shift of a signed
        # byte to the right fills it with its highest bit.
        np.multiply(edge, np.uint8(1 << place), out=bits)
        np.right_shift(bits.view(np.int8), 7, out=row.view(np.int8))
        if has_open:
            np.multiply(open_, np.uint8(1 << place), out=bits)
            row |= np.bitwise_and(bits, OPEN, out=bits)
    return image[:height]


def _decode_planes(pixels: bytes | memoryview, shape: TileShape, dtype: str) -> Image:
    if shape[2] != 1 or dtype != "uint8":
        raise WireError(f"bitplanes hold one channel of uint8, but {shape} {dtype} was announced")
    height, width, _ = shape
    planes = _planes(_inflate(pixels, _blocks(height, width)), height, width)
    if (planes[0] & planes[1]).any():
        raise WireError("the bitplanes mark a pixel as both an edge and open")
    return _unpack(planes, height)


def _inflate(data: bytes | memoryview, blocks: int) -> Image:
    """Return the bytes of so many blocks, of which `data` has those that are not empty."""
    map_bytes = (blocks + 7) // 8
    _check_ratio(len(data), map_bytes)
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, map_bytes + blocks * _BLOCK + 1)
    except zlib.error as problem:
        raise WireError(f"the bitplanes cannot be inflated: {problem}") from None
    found = np.frombuffer(inflated, np.uint8)
    used = np.unpackbits(found[:map_bytes], count=blocks).view(bool)
    expected = map_bytes + int(np.count_nonzero(used)) * _BLOCK
    if len(found) != expected or not stream.eof or stream.unused_data:
        raise WireError(f"the bitplanes do not inflate to the {blocks} blocks of their map")
    packed: Image = np.zeros((blocks, _BLOCK), np.uint8)
    packed[used] = found[map_bytes:].reshape(-1, _BLOCK)
    return packed.reshape(-1)
