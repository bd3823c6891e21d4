"""Colour spaces, and single channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import FLOAT_ALIGN, Operator, Samples, build_dependent
from fogmqtt.operators.api.registry import suggestion

_CHANNELS = {
    "blue": 0,
    "green": 1,
    "red": 2,
    "hue": 0,
    "saturation": 1,
    "value": 2,
    "lightness": 0,
}
_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Gray(Operator):
    """Brightness by `cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)`.

    Takes uint8, uint16 or float32 of 1 or 3 channels; the result has 1 channel of the same dtype. A
    gray image stays as it is. Halo 0. Exact; for float32 only between devices with the same OpenCV
    build and kind of processor.
    """

    name: ClassVar[str] = "gray"
    exactness: ClassVar[str] = build_dependent("float32")
    reduces_bytes: ClassVar[bool] = True

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "uint16", "float32"), channels=(1, 3))
        return replace(spec, channels=1)

    def process(self, image: Image) -> Image:
        return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


@dataclass(frozen=True)
class Hsv(Operator):
    """Hue, saturation and value by `cv2.cvtColor(image, cv2.COLOR_BGR2HSV)`, or back.

    Takes uint8 or float32 (0 to 1) of 3 channels and keeps both. Halo 0. Exact only between devices
    with the same OpenCV build and kind of processor, because OpenCV uses float arithmetic: results
    on ARM and x86 differ by 1 in some pixels, and those of `back` also between versions of OpenCV.

    Parameters
    ----------
    back : bool
        Whether to convert from HSV to BGR.
    full : bool
        For uint8: hue is 0 to 255 instead of 0 to 180 (degrees / 2).
    """

    # On ARM, vector code and the remainder of a row round differently, in both directions.

    name: ClassVar[str] = "hsv"
    align: ClassVar[int] = FLOAT_ALIGN
    exactness: ClassVar[str] = build_dependent("float arithmetic, of 8 bits too,")
    samples: ClassVar[Samples] = ({}, {"full": True}, {"back": True}, {"back": True, "full": True})

    back: bool = False
    full: bool = False

    def variant(self, spec: Spec) -> str:
        del spec
        return "back" if self.back else ""

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "float32"), channels=(3,))
        return spec

    def gives_bgr(self, *, before: bool) -> bool:
        del before
        return self.back

    def process(self, image: Image) -> Image:
        if self.back:
            code = cv2.COLOR_HSV2BGR_FULL if self.full else cv2.COLOR_HSV2BGR
        else:
            code = cv2.COLOR_BGR2HSV_FULL if self.full else cv2.COLOR_BGR2HSV
        return cv2.cvtColor(image, code)


@dataclass(frozen=True)
class Lab(Operator):
    """CIE L*a*b* by `cv2.cvtColor(image, cv2.COLOR_BGR2Lab)`, or back.

    Takes uint8 (L * 255 / 100, a + 128, b + 128) or float32 (0 to 1) of 3 channels and keeps both.
    Halo 0. Exact; uint8 uses integer arithmetic and is the same on all devices, float32 only
    between devices with the same OpenCV build and kind of processor.

    Parameters
    ----------
    back : bool
        Whether to convert from Lab to BGR.
    """

    name: ClassVar[str] = "lab"
    exactness: ClassVar[str] = build_dependent("float32")
    samples: ClassVar[Samples] = ({}, {"back": True})

    back: bool = False

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8", "float32"), channels=(3,))
        return spec

    def gives_bgr(self, *, before: bool) -> bool:
        del before
        return self.back

    def process(self, image: Image) -> Image:
        return cv2.cvtColor(image, cv2.COLOR_Lab2BGR if self.back else cv2.COLOR_BGR2Lab)


@dataclass(frozen=True)
class Channel(Operator):
    """One of the channels, by `cv2.extractChannel`.

    Takes any dtype; the result has 1 channel of the same dtype. Halo 0. Exact.

    Parameters
    ----------
    which : str
        An index from 0 to 3; blue, green or red for a BGR image; hue, saturation or value after
        `hsv`; lightness after `lab`.
    """

    name: ClassVar[str] = "channel"
    reduces_bytes: ClassVar[bool] = True

    which: str = "green"

    def __post_init__(self) -> None:
        known = self.which in _CHANNELS or self.which in map(str, range(_MOST_CHANNELS))
        self._require(
            known, "which", f"{suggestion(self.which, _CHANNELS)}, or an index from 0 to 3"
        )

    @property
    def _index(self) -> int:
        return _CHANNELS[self.which] if self.which in _CHANNELS else int(self.which)

    def output(self, spec: Spec) -> Spec:
        if spec.channels <= self._index:
            raise OperatorError(f"{self}: {spec} has no channel {self._index}, counted from 0")
        return replace(spec, channels=1)

    def process(self, image: Image) -> Image:
        return image if image.ndim == 2 else np.ascontiguousarray(image[..., self._index])
