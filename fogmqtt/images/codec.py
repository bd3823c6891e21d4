"""How pixels travel: arrays to bytes and back, without loss.

| codec  | what it is                                          | images                       |
|--------|-----------------------------------------------------|------------------------------|
| raw    | the array's own bytes, row-major, native endianness | all                          |
| png    | a PNG file                                          | uint8, uint16; 1, 3, 4 chan. |
| planes | two 1-bit planes (255, then 128), see `_pack`       | uint8 of 0, 128 and 255 only |

There is no JPEG: it changes pixels, and a result must equal OpenCV's bit for bit. Whatever is
decoded here came over the wire, so nothing is allocated that the bytes cannot fill.
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

#: Half decided pixels of a three-state image (see operators/canny.py), and decided ones.
OPEN, EDGE = 128, 255

#: MQTT's largest packet: no raw tile is larger, so no compressed one may become so.
MAX_BYTES = 268_435_455

_CODECS = ("raw", "png", "planes")
_DTYPES = frozenset({"uint8", "int8", "uint16", "int16", "int32", "float32", "float64"})
#: Deflate cannot do better than this, so a smaller message is a lie about its size.
_DEFLATE_RATIO = 1032
_PNG_HEADER = struct.Struct(">8s4x4sIIBB")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 6: 4}

Shape = tuple[int, int, int]


def names() -> tuple[str, ...]:
    """The codecs that `encode` and `decode` know."""
    return _CODECS


def encode(image: Image, codec: str) -> bytes | memoryview:
    """The image's bytes; `raw` is a view on a contiguous image's own memory, not a copy.

    Raises WireError for an image that the codec cannot hold, or a codec that is none.
    """
    match codec:
        case "raw":
            return np.ascontiguousarray(image).data.cast("B")
        case "png":
            return _encode_png(image)
        case "planes":
            return _encode_planes(image)
    raise _unknown(codec)


def decode(pixels: bytes | memoryview, codec: str, shape: Shape, dtype: str) -> Image:
    """The image of `shape` (height, width, channels) and `dtype` that was encoded.

    One channel gives two dimensions. A `raw` image is a view on `pixels` and read-only where
    they are. Raises WireError unless the bytes hold exactly such an image.
    """
    if dtype not in _DTYPES:
        raise WireError(f"pixels of dtype {dtype!r}; known are {', '.join(sorted(_DTYPES))}")
    if min(shape) < 1:
        raise WireError(f"an image of shape {shape} has no pixels")
    if math.prod(shape) * np.dtype(dtype).itemsize > MAX_BYTES:
        raise WireError(f"a tile of shape {shape} {dtype} is over {MAX_BYTES} bytes; cut smaller")
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


def _array_shape(shape: Shape) -> tuple[int, ...]:
    return shape if shape[2] > 1 else shape[:2]


def _decode_raw(pixels: bytes | memoryview, shape: Shape, dtype: str) -> Image:
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    got = memoryview(pixels).nbytes
    if got != expected:
        raise WireError(f"{got} bytes of pixels where shape {shape} {dtype} has {expected}")
    return np.frombuffer(pixels, dtype).reshape(_array_shape(shape))


def _encode_png(image: Image) -> bytes:
    from fogmqtt.images.cv import cv2

    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype not in (np.uint8, np.uint16) or channels not in _PNG_CHANNELS.values():
        raise WireError(f"png holds no {channels}-channel {image.dtype} image; use codec raw")
    # Level 1: tiles are compressed to shorten their way, and a slow encoder would not.
    fine, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not fine:
        raise WireError(f"OpenCV could not write a PNG of shape {image.shape} {image.dtype}")
    return data.tobytes()


def _decode_png(pixels: bytes | memoryview, shape: Shape, dtype: str) -> Image:
    from fogmqtt.images.cv import cv2

    _check_png(pixels, shape, dtype)
    try:
        image = cv2.imdecode(np.frombuffer(pixels, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as problem:
        raise WireError(f"the PNG cannot be decoded: {problem.err}") from None
    if image is None:
        raise WireError("the PNG cannot be decoded")
    if image.shape != _array_shape(shape) or image.dtype != dtype:
        raise WireError(f"a PNG of {image.shape} {image.dtype}, announced {shape} {dtype}")
    return image


def _check_png(pixels: bytes | memoryview, shape: Shape, dtype: str) -> None:
    """Compare the header with what was announced before anything is allocated."""
    if len(pixels) < _PNG_HEADER.size:
        raise WireError(f"{len(pixels)} bytes are no PNG")
    signature, chunk, width, height, depth, kind = _PNG_HEADER.unpack_from(pixels)
    if signature != _PNG_SIGNATURE or chunk != b"IHDR":
        raise WireError("the pixels are no PNG")
    found = (height, width, _PNG_CHANNELS.get(kind, 0)), f"uint{depth}"
    if found != (shape, dtype):
        raise WireError(f"a PNG of {found[0]} {found[1]}, announced {shape} {dtype}")
    if bytes(pixels[-8:-4]) != b"IEND":
        raise WireError("the PNG is cut short")
    _check_ratio(len(pixels), math.prod(shape) * np.dtype(dtype).itemsize)


def _check_ratio(compressed: int, expected: int) -> None:
    if expected > _DEFLATE_RATIO * (compressed + 64):
        raise WireError(f"{compressed} bytes cannot hold the {expected} that were announced")


def _encode_planes(image: Image) -> bytes:
    from fogmqtt.images.cv import cv2

    if image.ndim != 2 or image.dtype != np.uint8:
        raise WireError(f"planes hold no {image.shape} {image.dtype} image; use codec raw")
    columns = cv2.transpose(image)
    edge, open_ = columns == EDGE, columns == OPEN
    if np.count_nonzero(image) != np.count_nonzero(edge) + np.count_nonzero(open_):
        raise WireError(f"planes hold only the values 0, {OPEN} and {EDGE}; use codec raw")
    # Run lengths alone: a fifth smaller than level 1 on edges, and in half its time.
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return stream.compress(_pack(edge)) + stream.compress(_pack(open_)) + stream.flush()


def _pack(columns: Image) -> bytes:
    """Eight pixels of a column to a byte, the upper one first; the bytes row by row.

    Lines in an image touch fewer such bytes than bytes of a row. Takes the plane transposed, in
    which a column is contiguous: numpy packs several times faster so.
    """
    return np.packbits(columns, axis=1).T.tobytes()


def _unpack(packed: Image, height: int) -> Image:
    return np.unpackbits(np.ascontiguousarray(packed.T), axis=1, count=height)


def _decode_planes(pixels: bytes | memoryview, shape: Shape, dtype: str) -> Image:
    from fogmqtt.images.cv import cv2

    if shape[2] != 1 or dtype != "uint8":
        raise WireError(f"planes hold one channel of uint8, not {shape} {dtype}")
    height, width, _ = shape
    lines = (height + 7) // 8
    packed = np.frombuffer(_inflate(pixels, 2 * lines * width), np.uint8).reshape(2, lines, width)
    if (packed[0] & packed[1]).any():
        raise WireError("planes that call a pixel both decided and open")
    edge, open_ = (_unpack(plane, height) for plane in packed)
    edge *= EDGE
    open_ *= OPEN
    edge |= open_
    return cv2.transpose(edge)


def _inflate(data: bytes | memoryview, size: int) -> bytes:
    """Exactly `size` bytes; never inflates more than one byte over."""
    _check_ratio(len(data), size)
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, size + 1)
    except zlib.error as problem:
        raise WireError(f"the planes cannot be inflated: {problem}") from None
    if len(inflated) != size or not stream.eof or stream.unused_data:
        raise WireError(f"the planes do not inflate to the announced {size} bytes")
    return inflated
