"""Boxes around objects, in integers: the outputs of networks, and non-maximum suppression.

Positions are hundredths of a pixel and scores are ten-thousandths, so comparisons do not round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.spec import Image

#: The integer for a score of 1.
SCORE_SCALE = 10_000


@dataclass(frozen=True, slots=True)
class Boxes:
    """n boxes: places (n, 4) as left, top, right, bottom; scores and classes (n,). All int64."""

    places: Image
    scores: Image
    classes: Image

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, which: Any) -> Self:
        """Return the boxes that an index array or a mask selects, in its order."""
        return type(self)(self.places[which], self.scores[which], self.classes[which])

    def order(self, last: Image | None = None) -> Image:
        """Return the indices by falling score, then class and place.

        Boxes in the mask `last` come after all others.
        """
        keys = [*self.places.T, self.classes, -self.scores]
        return np.lexsort(keys if last is None else [*keys, last])


def suppress_overlaps(boxes: Boxes, share: float, most: int, pieces: Image | None = None) -> Image:
    """Return the indices of the boxes that remain after non-maximum suppression, best first.

    After `most` of them it stops: those behind them are compared with these, and not with each
    other.

    A box is removed if its intersection with a better box of its class exceeds `share` of their
    union. `pieces` masks boxes that may be parts of objects: they rank behind all others, and are
    also removed if more than `share` of their own area lies in a better box.
    """
    order = boxes.order(pieces)
    kept: list[int] = []
    while len(order) and len(kept) < most:
        first, order = order[0], order[1:]
        kept.append(int(first))
        inter, areas = _shared(boxes.places[first], boxes.places[order])
        union = _areas(boxes.places[first]) + areas - inter
        same = inter > share * union
        if pieces is not None:
            same |= pieces[order] & (inter > share * areas)
        order = order[~(same & (boxes.classes[order] == boxes.classes[first]))]
    return np.array([*kept, *order.tolist()], np.int64)


def _shared(one: Image, others: Image) -> tuple[Image, Image]:
    """Return the areas that `others` share with one box, and their own areas."""
    corner = np.minimum(others[:, 2:], one[2:]) - np.maximum(others[:, :2], one[:2])
    return np.maximum(corner, 0).prod(axis=1), _areas(others)


def _areas(places: Image) -> Image:
    areas: Image = (places[..., 2:] - places[..., :2]).prod(axis=-1)
    return areas


# Outputs of networks. Places are pixels of the window, float32.

_FloatBoxes = tuple[Image, Image, Image]


def parse_output(form: str, outputs: Sequence[Image], least: float, classes: int) -> Boxes:
    """Return the boxes of a network's outputs with a score of at least `least`.

    `form` is one of FORMS; `classes` is the expected number of classes, 0 for any. Raises
    OperatorError for outputs of another form.
    """
    shapes = ", ".join("x".join(str(side) for side in one.shape) for one in outputs)
    one = outputs[0] if len(outputs) == 1 else np.empty(0)
    if one.ndim != 3 or one.shape[0] != 1:
        raise OperatorError(f"dnn: the output is {shapes}, not {_SHAPES[form]}")
    rows = one[0].T if form == "yolov8" else one[0]
    if not _plausible(form, rows, classes):
        wanted = f" for {classes} classes" if classes and form != "boxes" else ""
        raise OperatorError(f"dnn: the output is {shapes}, not {_SHAPES[form]}{wanted}")
    with np.errstate(invalid="ignore"):  # outputs may contain infinities
        return _to_integers(FORMS[form](rows.astype(np.float64)), least)


def _plausible(form: str, rows: Image, classes: int) -> bool:
    """Return whether the rows have the number of fields of the form, and are not transposed."""
    count, fields = int(rows.shape[0]), int(rows.shape[1])
    if form == "boxes":
        return fields == 6
    known = fields - (4 if form == "yolov8" else 5)
    return known == classes if classes else known >= 1 and fields <= count


def _yolov8(rows: Image) -> _FloatBoxes:
    scores = rows[:, 4:]
    return _corners(rows), scores.max(axis=1), scores.argmax(axis=1)


def _yolov5(rows: Image) -> _FloatBoxes:
    scores = rows[:, 5:] * rows[:, 4:5]
    return _corners(rows), scores.max(axis=1), scores.argmax(axis=1)


def _corner_rows(rows: Image) -> _FloatBoxes:
    return rows[:, :4], rows[:, 4], rows[:, 5]


def _corners(rows: Image) -> Image:
    """Return left, top, right and bottom from centre, width and height."""
    half = rows[:, 2:4] / 2
    return np.hstack([rows[:, :2] - half, rows[:, :2] + half])


#: Format → function from rows of one box each to corners, scores and classes.
FORMS: dict[str, Callable[[Image], _FloatBoxes]] = {
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "boxes": _corner_rows,
}
_SHAPES = {
    "yolov8": "yolov8's 1 x (4 + classes) x boxes",
    "yolov5": "yolov5's 1 x boxes x (5 + classes)",
    "boxes": "1 x boxes x (left, top, right, bottom, score, class)",
}

#: Larger than any window in pixels, and than any number of classes.
_FARTHEST = 100_000


def _to_integers(boxes: _FloatBoxes, least: float) -> Boxes:
    """Return integer boxes, without those of a lower score or impossible values."""
    places, scores, classes = boxes
    valid = (scores >= least) & (np.abs(places) < _FARTHEST).all(axis=1)
    valid &= (classes >= 0) & (classes < _FARTHEST)
    return Boxes(
        np.rint(places[valid] * 100).astype(np.int64),
        np.rint(np.minimum(scores[valid], 1) * SCORE_SCALE).astype(np.int64),
        classes[valid].astype(np.int64),
    )
