"""A tile's result as it travels: pixels, or a part of facts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.errors import OperatorError, WireError
from fogmqtt.images import codec
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.measuring import Part, decode_part, encode_part

#: What a tile gives.
Given = Image | Part


@dataclass(frozen=True, slots=True)
class Encoded:
    """A result's bytes, and what they are of."""

    data: memoryview
    #: Height and width of the core; channels.
    shape: tuple[int, int, int]
    dtype: str


def encode(operator: Operator, given: Given, core: Rect, result_codec: str) -> Encoded:
    """The result of a stage that `operator` ends, for this core.

    Raises OperatorError for what is no result of such a core, WireError for a wrong codec.
    """
    if operator.measures != (result_codec == "facts"):
        raise WireError(f"{operator.name} does not answer in codec {result_codec!r}")
    size = core.height, core.width
    if isinstance(given, Part):
        return Encoded(memoryview(encode_part(given)), (*size, 1), "uint8")
    if operator.measures or not isinstance(given, np.ndarray):
        raise OperatorError(f"{operator.name} gave a {type(given).__name__} for a core of {core}")
    spec = Spec.of(given)
    if spec.size != size:
        raise OperatorError(f"{operator.name} gave {spec} for a core of {core}")
    data = memoryview(codec.encode(given, result_codec))
    return Encoded(data, (*size, spec.channels), spec.dtype)


def decode(operator: Operator, result_codec: str, encoded: Encoded) -> Given:
    """What `encode` made the bytes of. Raises WireError where they hold no such thing."""
    if result_codec == "facts":
        return decode_part(operator, encoded.data)
    return codec.decode(encoded.data, result_codec, encoded.shape, encoded.dtype)
