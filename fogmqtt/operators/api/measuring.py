"""Operators whose result is facts about an image, not another image.

A device answers with a *part*: what its core alone tells. The gateway gathers the parts into
*facts*, a JSON object in whole-image coordinates. The law is the same: gathered equals whole.

| method  | runs                  | sees                              |
|---------|-----------------------|-----------------------------------|
| measure | device, per tile      | core + halo, and where the core is |
| gather  | gateway               | the parts, by tile                |
| examine | one machine           | the whole image                   |
| draw    | gateway, for people   | a picture and the facts           |
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
    """What one core tells. A subclass is the schema that an arriving part is held against."""


Parts = Sequence[tuple[Tile, Any]]

_ABSENT = object()


@dataclass(frozen=True)
class Measuring(Operator):
    """Base of the operators that measure. One stands last in its pipeline.

    With `tiled` False there are no parts: `examine` runs on the gateway, and the operators
    before it are what the devices do.
    """

    measures: ClassVar[bool] = True
    ends_stage: ClassVar[bool] = True
    result_codec: ClassVar[str] = "facts"
    #: What `measure` answers with.
    part: ClassVar[type[Part]] = Part
    #: Bytes of a part for each pixel of its core, at the worst: tiles are planned with it.
    part_pixel_bytes: ClassVar[float] = 0.0

    def measure(self, image: Image, core: Rect, seams: Seams) -> Part:
        """What the core tells, of type `part`; `core` is in the tile's own coordinates."""
        raise NotImplementedError

    def gather(self, parts: Parts, image: Spec) -> Facts:
        """The facts of the whole image, of this Spec; parts by top, then left of their cores.

        Parts came over the wire: they have the type `part`, and may still say the impossible.
        """
        raise NotImplementedError

    def examine(self, image: Image) -> Facts:
        """The same on one machine, from the whole image."""
        raise NotImplementedError

    def draw(self, picture: Image, facts: Facts) -> Image:
        """The facts for people: `picture` is 8-bit colour of the measured size, and yours."""
        del facts
        return picture

    def merger(self, output: Spec) -> PartsMerger:
        return PartsMerger(self, output)


class PartsMerger:
    """Keeps the parts until all are there."""

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
    """A part as it travels: MessagePack, whatever the message around it is."""
    return msgspec.msgpack.encode(part)


def decode_part(operator: Operator, data: bytes | memoryview) -> Part:
    """A part that arrived. Raises WireError where it is none of this operator's."""
    if not isinstance(operator, Measuring):
        raise WireError(f"{operator.name} gives pixels, not facts")
    try:
        return msgspec.msgpack.decode(data, type=operator.part)
    except (msgspec.MsgspecError, RecursionError, ValueError) as problem:
        raise WireError(f"{operator.name}: no part of its facts: {problem}") from None


def as_json(facts: Facts) -> bytes:
    """Facts as people and programs read them, with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(facts)) + b"\n"


def differing(made: object, expected: object) -> tuple[int, int]:
    """How many single values differ between two facts, and how many there are.

    What only one of them has counts as differing.
    """
    if isinstance(made, dict) and isinstance(expected, dict):
        keys = sorted(made.keys() | expected.keys())
        pairs = [(made.get(key, _ABSENT), expected.get(key, _ABSENT)) for key in keys]
    elif isinstance(made, list) and isinstance(expected, list):
        pairs = list(zip_longest(made, expected, fillvalue=_ABSENT))
    else:
        same = type(made) is type(expected) and made == expected
        return int(not same), 1
    counts = [differing(*pair) for pair in pairs]
    return sum(count[0] for count in counts), sum(count[1] for count in counts)
