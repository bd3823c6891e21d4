"""A tile's result and its encoding on the wire: pixels, or a part of facts."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from fogmqtt.core.geometry import Rect
from fogmqtt.errors import OperatorError, WireError
from fogmqtt.images import codec
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.measuring import Part, decode_part, encode_part

#: The result of a tile: an image of the core's height and width, or a part of facts.
TileResult = Image | Part


class EncodedResult(Struct, frozen=True):
    """A result's bytes, and the shape and dtype of its array."""

    data: memoryview
    #: Height, width and channels of the core.
    shape: tuple[int, int, int]
    dtype: str
    codec: str


def encode(operator: Operator, result: TileResult, core: Rect, result_codec: str) -> EncodedResult:
    """Return the encoded result for a core; `operator` is the last one of the stage.

    It is `raw` instead of `png` if that is smaller. Raises OperatorError if the result does not fit
    the core, WireError if the codec does not fit the operator.
    """
    if operator.measures != (result_codec == "facts"):
        raise WireError(f"{operator.name} does not answer in codec {result_codec!r}")
    size = core.height, core.width
    if isinstance(result, Part):
        part = memoryview(encode_part(result))
        return EncodedResult(part, (*size, 1), "uint8", result_codec)
    if operator.measures or not isinstance(result, np.ndarray):
        raise OperatorError(f"{operator.name} gave a {type(result).__name__} for a core of {core}")
    spec = Spec.of(result)
    if spec.size != size:
        raise OperatorError(f"{operator.name} gave {spec} for a core of {core}")
    data, used = codec.encode_smaller(result, result_codec)
    return EncodedResult(memoryview(data), (*size, spec.channels), spec.dtype, used)


def decode(operator: Operator, encoded: EncodedResult) -> TileResult:
    """Return the result that `encode` encoded. Raises WireError for invalid bytes."""
    if encoded.codec == "facts":
        return decode_part(operator, encoded.data)
    return codec.decode(encoded.data, encoded.codec, encoded.shape, encoded.dtype)
