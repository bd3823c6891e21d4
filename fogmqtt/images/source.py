"""Pixels that are read and written by rectangle, so that an image need not be one array in memory.

`ImageSource` and `ImageSink` are what a job needs of its input and of its result; `ImageBuffer`
is both. `ArrayImage` implements them over a numpy array. Memory-mapped and tiled files can
implement them as well.
"""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.errors import ImageError
from fogmqtt.images.spec import Image, Spec


class ImageSource(Protocol):
    """An image whose pixels can be read. Several threads may read at the same time."""

    @property
    def spec(self) -> Spec:
        """Size, channels and dtype of the whole image."""

    def read(self, rect: Rect, /) -> Image:
        """Return the pixels of a rectangle.

        The array has `rect`'s height and width, and the spec's channels and dtype. It may share
        memory with the source, so the caller must not change it.

        Raises ImageError if the rectangle is not within the image, or cannot be read.
        """


class ImageSink(Protocol):
    """An image whose pixels can be written.

    Several threads may write at the same time if their rectangles do not overlap.
    """

    @property
    def spec(self) -> Spec:
        """Size, channels and dtype of the whole image."""

    def write(self, rect: Rect, pixels: Image, /) -> None:
        """Write the pixels of a rectangle. Pixels that were written before are replaced.

        `pixels` has `rect`'s height and width, and the spec's channels and dtype. The sink keeps
        no reference to it.

        Raises ImageError if the rectangle is not within the image, if `pixels` has another shape
        or dtype, or if it cannot be written.
        """


class ImageBuffer(ImageSource, ImageSink, Protocol):
    """An image whose pixels can be written and read back."""


class ArrayImage:
    """An `ImageBuffer` over a numpy array; `read` returns views of it.

    `array` has the shape (height, width) or (height, width, channels) and any dtype. It is not
    copied.
    """

    def __init__(self, array: Image) -> None:
        self._array = array
        self._spec = Spec.of(array)

    @classmethod
    def zeros(cls, spec: Spec) -> Self:
        """Return an image of `spec` in which all values are 0."""
        return cls(np.zeros(spec.array_shape, spec.dtype))

    @property
    def spec(self) -> Spec:
        return self._spec

    @property
    def array(self) -> Image:
        """The whole image. Changes to it change the image."""
        return self._array

    def read(self, rect: Rect, /) -> Image:
        self._require_within(rect)
        return self._array[rect.slices]

    def write(self, rect: Rect, pixels: Image, /) -> None:
        self._require_within(rect)
        target = self._array[rect.slices]
        if pixels.shape != target.shape or pixels.dtype != target.dtype:
            raise ImageError(
                f"cannot write {pixels.dtype} pixels of shape {pixels.shape} into {rect} of "
                f"{self._spec}; the shape must be {target.shape} and the dtype {target.dtype}"
            )
        target[...] = pixels

    def _require_within(self, rect: Rect) -> None:
        if not whole(self._spec).contains(rect):
            raise ImageError(f"{rect} is not within the image, which is {self._spec}")


def whole(spec: Spec) -> Rect:
    """Return the rectangle that covers an image of `spec`."""
    return Rect(0, 0, spec.height, spec.width)
