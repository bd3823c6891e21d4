"""Operators whose result is facts about an image, not another image.

A device answers with a *part*: the measurements of one core. The gateway gathers the parts into
*facts*, a JSON object in coordinates of the whole image. The rule is the same as for images: facts
gathered from tiles equal those of the whole image.

| method        | runs on             | receives                                |
|---------------|---------------------|-----------------------------------------|
| measure       | device, per tile    | core + halo, and the core's position    |
| gather        | gateway             | the parts, by tile                      |
| measure_whole | one machine         | the whole image                         |
| draw          | gateway, for people | an image and the facts                  |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar

import msgspec

from fogmqtt.core.geometry import Rect, Seams, Tile
from fogmqtt.errors import WireError
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts, Operator


class Part(msgspec.Struct, frozen=True):
    """The measurements of one core. Subclasses are the schemas that received parts must match."""


#: Each tile with its part.
Parts = Sequence[tuple[Tile, Any]]

_ABSENT = object()


@dataclass(frozen=True)
class Measuring(Operator):
    """Base of the operators that measure. Such an operator must be the last of its pipeline.

    With `tiled` False there are no parts: `measure_whole` runs on the gateway, and the devices run
    the operators before it.
    """

    measures: ClassVar[bool] = True
    ends_stage: ClassVar[bool] = True
    result_codec: ClassVar[str] = "facts"
    #: The type of the result of `measure`.
    part: ClassVar[type[Part]] = Part
    #: The most bytes of a part for each pixel of its core. Tile sizes are planned with it.
    part_pixel_bytes: ClassVar[float] = 0.0

    def measure(self, image: Image, core: Rect, seams: Seams) -> Part:
        """Return the measurements of a core, of type `part`.

        `image` is a tile with its halo, `core` its core in the tile's own coordinates, and `seams`
        says which sides of the core are not the image's border.
        """
        raise NotImplementedError

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """Return the facts of the whole image, whose spec is `image`.

        `parts` is sorted by the top, then the left of the cores. Parts were received from devices:
        their type is checked, but their values may be impossible. Raises WireError for those.
        """
        raise NotImplementedError

    def measure_whole(self, image: Image) -> Facts:
        """Return the facts of a whole image on one machine."""
        raise NotImplementedError

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Return an image that shows the facts.

        `picture` is uint8 (height, width, 3) of the measured size. The method may draw on it.
        """
        del facts
        return picture

    def merger(self, output: Spec) -> PartsMerger:
        return PartsMerger(self, output)

    @classmethod
    def missing_method(cls) -> str:
        names = ("measure", "gather", "measure_whole") if cls.tiled else ("measure_whole",)
        return next((one for one in names if getattr(cls, one) is getattr(Measuring, one)), "")


class PartsMerger:
    """Collects the parts, and gathers them when all are present."""

    def __init__(self, operator: Measuring, image: Spec) -> None:
        self._operator = operator
        self._image = image
        self._parts: dict[int, tuple[Tile, Part]] = {}

    def paste(self, tile: Tile, part: Part) -> None:
        self._parts[tile.index] = tile, part

    def finish(self) -> Facts:
        parts = sorted(self._parts.values(), key=lambda one: (one[0].core.top, one[0].core.left))
        return self._operator.gather(parts, self._image)


def encode_part(part: Part) -> bytes:
    """Return a part as MessagePack, whatever the encoding of the message around it."""
    return msgspec.msgpack.encode(part)


def decode_part(operator: Operator, data: bytes | memoryview) -> Part:
    """Return a received part. Raises WireError if it is not one of this operator."""
    if not isinstance(operator, Measuring):
        raise WireError(f"{operator.name} gives pixels, not facts")
    try:
        return msgspec.msgpack.decode(data, type=operator.part)
    except (msgspec.MsgspecError, RecursionError, ValueError) as problem:
        raise WireError(
            f"{operator.name}: the result is not a part of its facts: {problem}"
        ) from None


def with_note(facts: Facts, limit: str) -> Facts:
    """Return facts with the key `note` if there are more than they list.

    They have the number of those in `left_out`; `limit` says why, and what lists more.
    """
    left_out = facts["left_out"]
    return {**facts, "note": f"{left_out} more are not listed: {limit}"} if left_out else facts


def as_json(facts: Facts) -> bytes:
    """Return facts as indented JSON with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(facts)) + b"\n"


def count_differences(actual: object, expected: object) -> tuple[int, int]:
    """Return how many single values of two facts differ, and how many values there are.

    A value that only one of them has counts as different.
    """
    if isinstance(actual, dict) and isinstance(expected, dict):
        keys = sorted(actual.keys() | expected.keys())
        pairs = [(actual.get(key, _ABSENT), expected.get(key, _ABSENT)) for key in keys]
    elif isinstance(actual, list) and isinstance(expected, list):
        pairs = list(zip_longest(actual, expected, fillvalue=_ABSENT))
    else:
        same = type(actual) is type(expected) and actual == expected
        return int(not same), 1
    counts = [count_differences(*pair) for pair in pairs]
    return sum(count[0] for count in counts), sum(count[1] for count in counts)
