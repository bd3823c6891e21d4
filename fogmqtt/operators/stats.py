"""Smallest, largest, mean and standard deviation, from sums that are exact."""

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
from fogmqtt.operators.colour import levels

#: Float sums are whole numbers of the least float32: this power of one half.
_FLOAT_UNIT = 149
#: So many values are added at once: few enough for a processor's cache, and for float64 to add
#: so many numbers of 24 bits without rounding.
_AT_ONCE = 2**16
_LOW_24 = 2**24 - 1
_LOW_31 = 2**31 - 1
#: A big whole number, signed, big-endian; the squares of 2 ** 40 floats have 80 bytes.
_Big = Annotated[bytes, msgspec.Meta(max_length=96)]


class Sums(msgspec.Struct, frozen=True, array_like=True):
    """One channel of a core; sums of floats in units of 2 ** -149, of their squares 2 ** -298."""

    low: int | float
    high: int | float
    total: _Big
    squares: _Big


class Moments(Part, frozen=True):
    """What the channels of a core are."""

    channels: list[Sums]


@dataclass(frozen=True)
class Stats(Measuring):
    """Smallest, largest and mean value and their standard deviation, by channel.

    Takes uint8, int8, uint16, int16, int32 or float32 of any channel count. Halo 0. Sums are
    added as whole numbers without any rounding, of floats too, so that no tiling changes them:
    the mean is the exact one rounded to float64, the deviation (of all pixels, not a sample) the
    root of the exact variance so rounded. `cv2.meanStdDev` rounds as it adds and agrees to some
    twelve digits.

    The facts::

        {"pixels": 240000,
         "channels": [{"min": 0, "max": 255, "mean": 101.25, "std": 47.5}]}

    Channels are in the image's order, of a colour image blue, green, red.
    """

    name: ClassVar[str] = "stats"
    part: ClassVar[type[Part]] = Moments
    exactness: ClassVar[str] = "mean and std from exact sums; cv2.meanStdDev rounds as it adds"

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "int8", "uint16", "int16", "int32", "float32"))
        return spec

    def measure(self, image: Image, core: Rect, seams: Seams) -> Moments:
        """Raises OperatorError for pixels that hold NaN or infinity."""
        del seams
        return Moments(list(self._sums(image[core.slices])))

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """Raises WireError for what no core can have."""
        for tile, part in parts:
            fine = len(part.channels) == image.channels
            if not fine or not all(_possible(one, tile.core, image) for one in part.channels):
                raise WireError(f"{self.name}: tile {tile.index} tells of no such pixels")
        columns = zip(*(part.channels for _, part in parts), strict=True)
        return _facts(columns, image)

    def measure_whole(self, image: Image) -> Facts:
        """Raises OperatorError for an image that holds NaN or infinity."""
        return _facts(([sums] for sums in self._sums(image)), Spec.of(image))

    def _sums(self, image: Image) -> Iterable[Sums]:
        for channel in range(Spec.of(image).channels):
            values = image if image.ndim == 2 else image[..., channel]
            low, high = values.min().item() + 0, values.max().item() + 0  # no minus zero
            if not math.isfinite(low) or not math.isfinite(high):
                raise OperatorError(f"{self.name}: the image holds values from {low} to {high}")
            total, squares = _added(values)
            yield Sums(low, high, _bytes(total), _bytes(squares))

    def draw(self, picture: Image, facts: Facts) -> Image:
        """The figures in a panel, a line for each channel."""
        channels = facts["channels"]
        names = "BGR" if len(channels) == 3 else [str(one) for one in range(len(channels))]
        rows = (_row(*pair) for pair in zip(names, channels, strict=True))
        write(picture, [f"{facts['pixels']} pixels", *rows])
        return picture


def _row(name: str, one: dict[str, float]) -> str:
    low, high, mean, std = (f"{one[key]:.4g}" for key in ("min", "max", "mean", "std"))
    return f"{name}  {low} .. {high}  mean {mean}  std {std}"


def _added(values: Image) -> tuple[int, int]:
    """The sum of all values and that of their squares."""
    if values.dtype in (np.uint8, np.uint16):
        counts = levels.histogram(values)
        numbers = np.arange(len(counts))
        return int(counts @ numbers), int(counts @ (numbers * numbers))
    rows = max(1, _AT_ONCE // values.shape[1])
    add = _added_floats if values.dtype == np.float32 else _added_integers
    sums = [add(values[top : top + rows]) for top in range(0, len(values), rows)]
    return sum(total for total, _ in sums), sum(squares for _, squares in sums)


def _added_integers(values: Image) -> tuple[int, int]:
    wide = values.astype(np.int64)
    squares = wide * wide
    return int(wide.sum()), (int((squares >> 31).sum()) << 31) + int((squares & _LOW_31).sum())


def _added_floats(values: Image) -> tuple[int, int]:
    bits = np.ascontiguousarray(values).view(np.uint32).ravel()
    power = (bits >> 23).astype(np.int64)  # and the sign before it
    mantissa = (bits & (_LOW_24 >> 1)).astype(np.int64)
    mantissa += ((power & 255) > 0) * 2**23
    squares = mantissa * mantissa
    parts = mantissa, squares >> 24, squares & _LOW_24
    sums = [np.bincount(power, weights=part, minlength=512) for part in parts]
    return _weighed(*(one.astype(np.int64).tolist() for one in sums))


def _weighed(whole: list[int], upper: list[int], lower: list[int]) -> tuple[int, int]:
    """The sums of mantissas and of their squares, by sign and power of two, as one number each."""
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
    """Whether such a core can have these sums: what follows then overflows nowhere."""
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
    """Division and root are the only roundings."""
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
