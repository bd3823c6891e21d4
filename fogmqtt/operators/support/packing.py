"""A compact encoding of many integers that are mostly small, with the same bytes on every machine.

A general compressor would also do, but builds of zlib write different bytes, and devices are
compared by the bytes of their results.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fogmqtt.errors import WireError
from fogmqtt.images.spec import Image

#: Little-endian integers of 1, 2, 4 and 8 bytes. A number that is at least the largest value of its
#: level is stored there as that largest value, and in full in the next level, in order.
Packed = tuple[bytes, bytes, bytes, bytes]

_LEVELS = tuple(np.dtype(kind) for kind in ("u1", "<u2", "<u4", "<u8"))


def pack(values: Image) -> Packed:
    """Return the encoding of a one-dimensional array of integers from 0 to 2 ** 63 - 1."""
    levels = []
    for kind in _LEVELS[:-1]:
        most = np.iinfo(kind).max
        levels.append(np.minimum(values, most).astype(kind).tobytes())
        values = values[values >= most]
    bottom, middle, upper = levels
    return bottom, middle, upper, values.astype(_LEVELS[-1]).tobytes()


def unpack(packed: Packed) -> Image:
    """Return the integers, int64. Takes eight bytes of memory for each byte of `packed`.

    Raises WireError for bytes that `pack` does not produce.
    """
    steps = [_decode_level(data, kind) for data, kind in zip(packed, _LEVELS, strict=True)]
    if (steps[-1] < 0).any():
        raise WireError("a packed number is 2 ** 63 or more")
    for (lower, upper), kind in reversed(tuple(zip(pairwise(steps), _LEVELS, strict=False))):
        most = int(np.iinfo(kind).max)
        higher = lower == most
        if np.count_nonzero(higher) != len(upper) or (upper < most).any():
            raise WireError("the levels of packed numbers do not fit together")
        lower[higher] = upper
    return steps[0]


def _decode_level(data: bytes, kind: np.dtype[np.unsignedinteger]) -> Image:
    if len(data) % kind.itemsize:
        raise WireError("packed numbers end in the middle of a number")
    return np.frombuffer(data, kind).astype(np.int64)
