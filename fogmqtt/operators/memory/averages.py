"""A running average and a background with its variance, in whole numbers.

Whole numbers and shifts give the same bits on every processor, and the memory is plain arrays, so
that a device can take over from another one without a difference in a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Samples
from fogmqtt.operators.api.memory import MemoryOperator, State

#: Fraction bits of a mean, of a difference before it is squared, and of a variance.
_MEAN_BITS = 16
_DIFFERENCE_BITS = 4
_VARIANCE_BITS = 14
#: Bytes of a frame that are computed at once, so that all arrays stay in the processor's cache.
_STRIP_BYTES = 1 << 15


def _shift(rate: int, count: int) -> int:
    """Return the shift for the frame after `count` others: in the beginning all frames count alike.

    The mean of n frames needs 1 / n of the last one; this is the next power of two.
    """
    return min(rate, (count + 1).bit_length() - 1)


def _strips(image: Image) -> Iterator[slice]:
    rows = max(1, _STRIP_BYTES // max(1, image[0].nbytes))
    for top in range(0, len(image), rows):
        yield slice(top, top + rows)


@dataclass(frozen=True)
class Average(MemoryOperator):
    """Running average: each frame moves it by 1 / 2**rate of the difference; for streams.

    Takes uint8 of any channel count and keeps both. fogmqtt defines the result: the average `a` has
    16 fraction bits and begins as the first frame. Then a += ((x << 16) - a) >> k, where k is
    `rate` or, before the frame 2**rate of the epoch, the logarithm of the number of frames, rounded
    down. The result is (a + 32768) >> 16. Halo 0. Exact, the same on all devices. Memory: 4 bytes
    for each value.

    Parameters
    ----------
    rate : int
        Each frame counts 1 / 2**rate, 1 to 12.
    """

    name: ClassVar[str] = "average"
    samples: ClassVar[Samples] = ({"rate": 1}, {})

    rate: int = 5

    def __post_init__(self) -> None:
        self._require(1 <= self.rate <= 12, "rate", "expected 1 to 12")

    @property
    def warmup(self) -> int:
        return 1 << self.rate

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",))
        return spec

    def state_bytes(self, spec: Spec) -> int:
        return 4 * spec.nbytes

    def step(self, image: Image, state: State | None, count: int) -> tuple[Image, State]:
        if state is None:
            return image.copy(), (image.astype(np.int32) << _MEAN_BITS,)
        (average,) = cast("tuple[Image]", state)
        result, shift = np.empty_like(image), _shift(self.rate, count)
        for rows in _strips(image):
            part = average[rows]
            change = (image[rows].astype(np.int32) << _MEAN_BITS) - part
            change >>= shift
            part += change
            result[rows] = (part + (1 << _MEAN_BITS - 1)) >> _MEAN_BITS
        return result, state


@dataclass(frozen=True)
class Background(MemoryOperator):
    """Foreground mask: 255 where a pixel is far from its running mean, else 0; for streams.

    Takes uint8 of any channel count; the result is uint8 of 1 channel. fogmqtt defines the result,
    in whole numbers. For each value x, the mean m has 16 fraction bits and the variance v has 14.
    With d = (x << 16) - m and q = (d >> 12)**2, the value is foreground if
    q > threshold**2 * max(v >> 6, noise**2 << 8), and a pixel is if one of its values is. Then
    m += d >> k, and v += ((q << 6) - v) >> k, where k is `rate`. In the foreground, k of the mean
    is `absorb`, and v stays. Before the frame 2**rate of the epoch, k is the logarithm of the
    number of frames, rounded down, for all pixels. The first frame is the mean, with noise**2 as
    the variance. Shadows are foreground. Halo 0. Exact, the same on all devices. Memory: 8 bytes
    for each value.

    Parameters
    ----------
    rate : int
        Each frame counts 1 / 2**rate in the background, 1 to 12.
    threshold : int
        Standard deviations from the mean over which a value is foreground, 1 to 16.
    noise : int
        The least standard deviation, 1 to 64.
    absorb : int
        Each frame counts 1 / 2**absorb in the foreground, so that a thing that stays becomes
        background, 1 to 15.
    """

    name: ClassVar[str] = "background"
    samples: ClassVar[Samples] = ({"rate": 1, "absorb": 2}, {})

    rate: int = 6
    threshold: int = 4
    noise: int = 4
    absorb: int = 9

    def __post_init__(self) -> None:
        self._require(1 <= self.rate <= 12, "rate", "expected 1 to 12")
        self._require(1 <= self.threshold <= 16, "threshold", "expected 1 to 16")
        self._require(1 <= self.noise <= 64, "noise", "expected 1 to 64")
        self._require(1 <= self.absorb <= 15, "absorb", "expected 1 to 15")

    @property
    def warmup(self) -> int:
        return 1 << self.rate

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",))
        return replace(spec, channels=1)

    def state_bytes(self, spec: Spec) -> int:
        return 8 * spec.nbytes

    def step(self, image: Image, state: State | None, count: int) -> tuple[Image, State]:
        mask = np.zeros(image.shape[:2], np.uint8)
        if state is None:
            mean = image.astype(np.int32) << _MEAN_BITS
            return mask, (mean, np.full_like(mean, self.noise**2 << _VARIANCE_BITS))
        mean, variance = cast("tuple[Image, Image]", state)
        for rows in _strips(image):
            self._step_strip(image[rows], mean[rows], variance[rows], mask[rows], count)
        return mask, state

    def _step_strip(
        self, image: Image, mean: Image, variance: Image, mask: Image, count: int
    ) -> None:
        """Set the mask and change mean and variance of some rows."""
        difference = (image.astype(np.int32) << _MEAN_BITS) - mean
        square = difference >> (_MEAN_BITS - _DIFFERENCE_BITS)
        square *= square
        # At most 255**2 * 16**2 with 8 fraction bits, which is just below 2**32.
        limit = (variance >> (_VARIANCE_BITS - 2 * _DIFFERENCE_BITS)).astype(np.uint32)
        np.maximum(limit, np.uint32(self.noise**2 << 2 * _DIFFERENCE_BITS), out=limit)
        limit *= np.uint32(self.threshold**2)
        is_foreground = _any_channel(square.view(np.uint32) > limit)
        np.copyto(mask, np.uint8(255), where=is_foreground)
        square <<= _VARIANCE_BITS - 2 * _DIFFERENCE_BITS
        square -= variance
        shift = _shift(self.rate, count)
        square >>= shift
        change = difference >> shift
        if count >= self.warmup:
            pixels = np.broadcast_to(is_foreground.T, image.T.shape).T  # in all channels
            np.copyto(change, difference >> self.absorb, where=pixels)
            np.copyto(square, np.int32(0), where=pixels)
        mean += change
        variance += square


def _any_channel(values: Image) -> Image:
    if values.ndim == 2:
        return values
    # Many times faster than numpy's `any` along an axis of three.
    found = values[..., 0]
    for channel in range(1, values.shape[2]):
        found = found | values[..., channel]
    return found
