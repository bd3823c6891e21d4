"""A result drawn on the original image of the job."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.picture import as_colour
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.registry import suggestion

#: Name → red, green and blue in hex.
_COLOURS = {
    "black": "000000",
    "blue": "0000ff",
    "cyan": "00ffff",
    "green": "00ff00",
    "magenta": "ff00ff",
    "orange": "ff8000",
    "red": "ff0000",
    "white": "ffffff",
    "yellow": "ffff00",
}
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")


@dataclass(frozen=True)
class Overlay(Operator):
    """The job's original image with every non-zero pixel of this image painted on it.

    Takes uint8 of 1 channel and of the original's size; the result is uint8 of 3 channels (BGR). A
    gray original is converted to BGR, and a 16-bit one to its high byte. Runs on the whole image,
    on the gateway. Exact.

    Parameters
    ----------
    colour : str
        Colour of the paint: a name (red, green, blue, cyan, magenta, yellow, orange, black, white)
        or six hex digits of red, green and blue.
    opacity : float
        Opacity of the paint, 0 to 1; 1 hides the original.
    """

    name: ClassVar[str] = "overlay"
    tiled: ClassVar[bool] = False

    colour: str = "red"
    opacity: float = 1.0
    _original: Image | None = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = self.colour in _COLOURS or _HEX.fullmatch(self.colour) is not None
        self._require(
            known, "colour", f"{suggestion(self.colour, _COLOURS)}, or write hex as ff8000"
        )
        self._require(0 <= self.opacity <= 1, "opacity", "expected 0 to 1")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1,))
        return replace(spec, channels=3)

    def prepare(self, image: Image, original: Image) -> Self:
        """Return the operator with the original. Raises OperatorError if the sizes differ."""
        if image.shape[:2] != original.shape[:2]:
            raise OperatorError(
                f"overlay draws {Spec.of(image)} on the original, which is {Spec.of(original)}: "
                "the pipeline must not change the size before it"
            )
        prepared = copy.copy(self)
        object.__setattr__(prepared, "_original", original)
        return prepared

    def process(self, image: Image) -> Image:
        """Raises OperatorError unless `prepare` was called."""
        if self._original is None:
            raise OperatorError("overlay was not prepared with the job's original image")
        canvas = as_colour(self._original)
        painted = image != 0
        paint = np.frombuffer(self._bgr(), np.uint8) * self.opacity
        canvas[painted] = np.rint(canvas[painted] * (1 - self.opacity) + paint)
        return canvas

    def _bgr(self) -> bytes:
        return bytes.fromhex(_COLOURS.get(self.colour, self.colour.removeprefix("#")))[::-1]
