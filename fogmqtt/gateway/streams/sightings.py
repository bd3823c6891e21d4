"""What the facts of a frame say is there: the things of which events are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fogmqtt.core.streaming.events import Grouping
from fogmqtt.core.streaming.tracker import BoundingBox, Sighting
from fogmqtt.operators.api.base import Facts, Operator

#: The full score, in ten-thousandths.
_FULL: Final = 10_000
#: Characters of a label: a code may hold kilobytes.
_LABEL: Final = 80


def grouping(operator: Operator) -> Grouping | None:
    """Return how what an operator finds becomes events; None if it finds nothing with a place.

    Components that move are parts of one thing, and a code's text says which code it is.
    """
    return _GROUPINGS.get(operator.name)


def sightings(facts: Facts, width: int, height: int) -> list[Sighting]:
    """Return what the facts of an image of this size say, for operators with a `grouping`."""
    return [
        sighting
        for key, read in _READERS.items()
        for one in facts.get(key, ())
        for sighting in read(one, width * height)
    ]


def _component(one: Mapping[str, Any], pixels: int) -> Iterator[Sighting]:
    """Its score is its share of the image."""
    left, top = 100 * one["left"], 100 * one["top"]
    box = BoundingBox(left, top, left + 100 * one["width"], top + 100 * one["height"])
    yield Sighting("motion", box, _FULL * one["area"] // pixels)


def _object(one: Mapping[str, Any], pixels: int) -> Iterator[Sighting]:
    del pixels
    left, top, width, height = (round(100 * value) for value in one["box"])
    box = BoundingBox(left, top, left + width, top + height)
    yield Sighting(one["class"][:_LABEL], box, round(_FULL * one["score"]))


def _code(one: Mapping[str, Any], pixels: int) -> Iterator[Sighting]:
    del pixels
    places = [[round(100 * value) for value in corner] for corner in one["corners"]]
    across, down = zip(*places, strict=True)
    box = BoundingBox(min(across), min(down), max(across), max(down))
    yield Sighting(f"{one['kind']}:{one['text']}"[:_LABEL], box, _FULL)


_GROUPINGS: Final[Mapping[str, Grouping]] = {
    "components": "all",
    "dnn": "overlap",
    "codes": "label",
}
_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], int], Iterator[Sighting]]]] = {
    "components": _component,
    "objects": _object,
    "codes": _code,
}
