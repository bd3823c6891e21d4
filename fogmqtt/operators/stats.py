"""Minimum, maximum, mean and standard deviation, from exact sums."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, WireError
from fogmqtt.images.panels import write
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts
from fogmqtt.operators.api.measuring import Measuring, Part, Parts
from fogmqtt.operators.support.value_counts import count_values

#: Sums of floats are multiples of the smallest positive float32, 2 to the power of minus this.
_FLOAT_UNIT = 149
#: Values that are added at once: few enough for the processor's cache, and for float64 to hold sums
#: of numbers of 24 bits without rounding.
_BLOCK = 2**16
_LOW_24 = 2**24 - 1
_LOW_31 = 2**31 - 1
#: A signed big-endian integer; the sum of the squares of 2 ** 40 floats has 80 bytes.
_BigInteger = Annotated[bytes, msgspec.Meta(max_length=96)]


class Sums(msgspec.Struct, frozen=True, array_like=True):
    """The sums of one channel of a core.

    Sums of floats are in units of 2 ** -149, those of their squares in units of 2 ** -298.
    """

    low: int | float
    high: int | float
    total: _BigInteger
    squares: _BigInteger


class Moments(Part, frozen=True):
    """The sums of each channel of a core."""

    channels: list[Sums]


@dataclass(frozen=True)
class Stats(Measuring):
    """Minimum, maximum, mean and standard deviation of each channel.

    Takes uint8, int8, uint16, int16, int32 or float32 of any channel count. Halo 0. Exact, the same
    on all devices: sums are integers without rounding, also for floats, so the tiling does not
    matter. The mean is the exact mean rounded to float64; the standard deviation is the root of the
    exact variance (of all pixels, not of a sample) rounded to float64. `cv2.meanStdDev` rounds
    while it adds, and agrees to about twelve digits.

    The facts::

        {"pixels": 240000,
         "channels": [{"min": 0, "max": 255, "mean": 101.25, "std": 47.5}]}

    Channels are in the image's order: blue, green, red for a colour image.
    """

    name: ClassVar[str] = "stats"
    part: ClassVar[type[Part]] = Moments
    exactness: ClassVar[str] = "mean and std from exact sums; cv2.meanStdDev rounds as it adds"

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "int8", "uint16", "int16", "int32", "float32"))
        return spec

    def measure(self, image: Image, core: Rect, seams: Seams) -> Moments:
        """Raises OperatorError for pixels with NaN or infinity."""
        del seams
        return Moments(list(self._sums(image[core.slices])))

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """Raises WireError for sums that a core cannot have."""
        for tile, part in parts:
            valid = len(part.channels) == image.channels
            if not valid or not all(_possible(one, tile.core, image) for one in part.channels):
                raise WireError(f"{self.name}: tile {tile.index} has impossible sums")
        columns = zip(*(part.channels for _, part in parts), strict=True)
        return _facts(columns, image)

    def measure_whole(self, image: Image) -> Facts:
        """Raises OperatorError for an image with NaN or infinity."""
        return _facts(([sums] for sums in self._sums(image)), Spec.of(image))

    def _sums(self, image: Image) -> Iterable[Sums]:
        for channel in range(Spec.of(image).channels):
            values = image if image.ndim == 2 else image[..., channel]
            low, high = values.min().item() + 0, values.max().item() + 0  # + 0 turns -0.0 into 0.0
            if not math.isfinite(low) or not math.isfinite(high):
                raise OperatorError(f"{self.name}: the image holds values from {low} to {high}")
            total, squares = _sum(values)
            yield Sums(low, high, _bytes(total), _bytes(squares))

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Write the figures into a panel, one line for each channel."""
        channels = facts["channels"]
        names = "BGR" if len(channels) == 3 else [str(one) for one in range(len(channels))]
        rows = (_row(*pair) for pair in zip(names, channels, strict=True))
        write(picture, [f"{facts['pixels']} pixels", *rows])
        return picture


def _row(name: str, one: dict[str, float]) -> str:
    low, high, mean, std = (f"{one[key]:.4g}" for key in ("min", "max", "mean", "std"))
    return f"{name}  {low} .. {high}  mean {mean}  std {std}"


def _sum(values: Image) -> tuple[int, int]:
    """Return the sum of all values and the sum of their squares."""
    if values.dtype in (np.uint8, np.uint16):
        counts = count_values(values)
        numbers = np.arange(len(counts))
        return int(counts @ numbers), int(counts @ (numbers * numbers))
    rows = max(1, _BLOCK // values.shape[1])
    add = _sum_floats if values.dtype == np.float32 else _sum_integers
    sums = [add(values[top : top + rows]) for top in range(0, len(values), rows)]
    return sum(total for total, _ in sums), sum(squares for _, squares in sums)


def _sum_integers(values: Image) -> tuple[int, int]:
    wide = values.astype(np.int64)
    squares = wide * wide
    return int(wide.sum()), (int((squares >> 31).sum()) << 31) + int((squares & _LOW_31).sum())


def _sum_floats(values: Image) -> tuple[int, int]:
    bits = np.ascontiguousarray(values).view(np.uint32).ravel()
    exponent = (bits >> 23).astype(np.int64)  # and the sign bit above it
    mantissa = (bits & (_LOW_24 >> 1)).astype(np.int64)
    mantissa += ((exponent & 255) > 0) * 2**23
    squares = mantissa * mantissa
    parts = mantissa, squares >> 24, squares & _LOW_24
    sums = [np.bincount(exponent, weights=part, minlength=512) for part in parts]
    return _combine_by_exponent(*(one.astype(np.int64).tolist() for one in sums))


def _combine_by_exponent(whole: list[int], upper: list[int], lower: list[int]) -> tuple[int, int]:
    """Return the total of the sums of mantissas and of their squares, by sign and exponent."""
    total = squares = 0
    for index in range(512):
        shift = max(1, index & 255) - 1
        total += (whole[index] << shift) * (-1 if index > 255 else 1)
        squares += ((upper[index] << 24) + lower[index]) << 2 * shift
    return total, squares


def _bytes(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _possible(sums: Sums, core: Rect, image: Spec) -> bool:
    """Return whether a core can have these sums, so that no later computation overflows."""
    floats = image.dtype.startswith("float")
    if not all(isinstance(one, float if floats else int) for one in (sums.low, sums.high)):
        return False
    limits: Any = np.finfo(image.dtype) if floats else np.iinfo(image.dtype)
    if not float(limits.min) <= sums.low <= sums.high <= float(limits.max):
        return False
    unit = 2**_FLOAT_UNIT if floats else 1
    mean = Fraction(_number(sums.total), core.pixels * unit)
    mean_square = Fraction(_number(sums.squares), core.pixels * unit * unit)
    farthest = max(Fraction(sums.low) ** 2, Fraction(sums.high) ** 2)
    return sums.low <= mean <= sums.high and mean * mean <= mean_square <= farthest


def _facts(channels: Iterable[Sequence[Sums]], image: Spec) -> Facts:
    pixels = image.height * image.width
    return {"pixels": pixels, "channels": [_channel(sums, pixels, image) for sums in channels]}


def _channel(sums: Sequence[Sums], pixels: int, image: Spec) -> dict[str, int | float]:
    """Return the facts of a channel. Only the division and the root round."""
    unit = 2**_FLOAT_UNIT if image.dtype.startswith("float") else 1
    total = sum(_number(one.total) for one in sums)
    squares = sum(_number(one.squares) for one in sums)
    variance = Fraction(pixels * squares - total * total, (pixels * unit) ** 2)
    return {
        "min": min(one.low for one in sums),
        "max": max(one.high for one in sums),
        "mean": float(Fraction(total, pixels * unit)),
        "std": math.sqrt(variance),
    }
