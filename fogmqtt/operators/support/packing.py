"""Many whole numbers, most of them small, in few bytes: the same bytes on every machine.

A compressor would do as well, but each build of zlib writes other bytes, and devices are compared
by their answers.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fogmqtt.errors import WireError
from fogmqtt.images.spec import Image

#: The numbers, lowest rung first, little-endian: a number that does not fit below the largest of
#: its rung leaves that largest there and stands, in order, on the next one.
Packed = tuple[bytes, bytes, bytes, bytes]

_RUNGS = tuple(np.dtype(kind) for kind in ("u1", "<u2", "<u4", "<u8"))


def pack(values: Image) -> Packed:
    """The numbers of a one-dimensional array, from 0 to 2 ** 63 - 1."""
    rungs = []
    for kind in _RUNGS[:-1]:
        most = np.iinfo(kind).max
        rungs.append(np.minimum(values, most).astype(kind).tobytes())
        values = values[values >= most]
    bottom, middle, upper = rungs
    return bottom, middle, upper, values.astype(_RUNGS[-1]).tobytes()


def unpack(packed: Packed) -> Image:
    """The numbers again, int64. Takes memory for eight bytes for each byte that arrived.

    Raises WireError for bytes that `pack` does not make.
    """
    steps = [_rung(data, kind) for data, kind in zip(packed, _RUNGS, strict=True)]
    if (steps[-1] < 0).any():
        raise WireError("packed numbers of 2 ** 63 and more")
    for (lower, upper), kind in reversed(tuple(zip(pairwise(steps), _RUNGS, strict=False))):
        most = int(np.iinfo(kind).max)
        higher = lower == most
        if np.count_nonzero(higher) != len(upper) or (upper < most).any():
            raise WireError("packed numbers that do not fit together")
        lower[higher] = upper
    return steps[0]


def _rung(data: bytes, kind: np.dtype[np.unsignedinteger]) -> Image:
    if len(data) % kind.itemsize:
        raise WireError("packed numbers that end in the middle of one")
    return np.frombuffer(data, kind).astype(np.int64)
