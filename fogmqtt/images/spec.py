"""Size, channels and dtype of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

#: Pixels: (height, width) or (height, width, channels), row-major; three channels are BGR.
Image = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """Size in pixels, channels and dtype. An array of one channel has two dimensions."""

    height: int
    width: int
    channels: int = 1
    dtype: str = "uint8"

    @classmethod
    def of(cls, image: Image) -> Spec:
        """Return the spec of an array."""
        channels = image.shape[2] if image.ndim == 3 else 1
        return cls(image.shape[0], image.shape[1], channels, _name(image.dtype))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def pixel_bytes(self) -> int:
        """The bytes of one pixel with all channels."""
        return self.channels * np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """The bytes of the whole image."""
        return math.prod((self.height, self.width, self.pixel_bytes))

    @property
    def array_shape(self) -> tuple[int, ...]:
        """The shape of the array: (height, width) or (height, width, channels)."""
        return self.size if self.channels == 1 else (*self.size, self.channels)

    def __str__(self) -> str:
        kind = {1: "gray", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        return f"{self.width}x{self.height} {kind} {self.dtype}"


@lru_cache(maxsize=64)
def _name(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype. numpy puts it together at each call."""
    return dtype.name
