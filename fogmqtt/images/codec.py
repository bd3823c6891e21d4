"""Encodes arrays to bytes and decodes them without loss, for transfer.

| codec  | content                                             | images                       |
|--------|-----------------------------------------------------|------------------------------|
| raw    | the array's bytes, row-major, native endianness     | all                          |
| png    | a PNG file                                          | uint8, uint16; 1, 3, 4 chan. |
| planes | two 1-bit planes (255, then 128), see `_pack`       | uint8 of 0, 128 and 255 only |

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

_CODECS = ("raw", "png", "planes")
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
        case "planes":
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
        case "planes":
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
    if image.dtype not in (np.uint8, np.uint16) or channels not in _PNG_CHANNELS.values():
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
    from fogmqtt.images.cv import cv2

    if image.ndim != 2 or image.dtype != np.uint8:
        raise WireError(f"planes cannot hold a {image.shape} {image.dtype} image; use codec raw")
    columns = cv2.transpose(image)
    edge, open_ = columns == EDGE, columns == OPEN
    if np.count_nonzero(image) != np.count_nonzero(edge) + np.count_nonzero(open_):
        raise WireError(f"planes hold only the values 0, {OPEN} and {EDGE}; use codec raw")
    # Run lengths only: on edges a fifth smaller than level 1, in half its time.
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return stream.compress(_pack(edge)) + stream.compress(_pack(open_)) + stream.flush()


def _pack(columns: Image) -> bytes:
    """Pack eight pixels of a column into a byte, the uppermost in the highest bit.

    Returns the bytes row by row. A line in an image touches fewer such bytes than bytes that hold
    pixels of a row. The plane is transposed, so that a column is contiguous: numpy packs that
    several times faster.
    """
    return np.packbits(columns, axis=1).T.tobytes()


def _unpack(packed: Image, height: int) -> Image:
    return np.unpackbits(np.ascontiguousarray(packed.T), axis=1, count=height)


def _decode_planes(pixels: bytes | memoryview, shape: TileShape, dtype: str) -> Image:
    from fogmqtt.images.cv import cv2

    if shape[2] != 1 or dtype != "uint8":
        raise WireError(f"planes hold one channel of uint8, but {shape} {dtype} was announced")
    height, width, _ = shape
    rows = (height + 7) // 8
    packed = np.frombuffer(_inflate(pixels, 2 * rows * width), np.uint8).reshape(2, rows, width)
    if (packed[0] & packed[1]).any():
        raise WireError("the planes mark a pixel as both an edge and open")
    edge, open_ = (_unpack(plane, height) for plane in packed)
    edge *= EDGE
    open_ *= OPEN
    edge |= open_
    return cv2.transpose(edge)


def _inflate(data: bytes | memoryview, size: int) -> bytes:
    """Return exactly `size` bytes. Never inflates more than one byte beyond that."""
    _check_ratio(len(data), size)
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, size + 1)
    except zlib.error as problem:
        raise WireError(f"the planes cannot be inflated: {problem}") from None
    if len(inflated) != size or not stream.eof or stream.unused_data:
        raise WireError(f"the planes do not inflate to the announced {size} bytes")
    return inflated
