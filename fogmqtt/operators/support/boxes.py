"""Boxes around objects, in whole numbers: what networks answer, and which of them say the same.

Places are hundredths of a pixel and scores ten-thousandths, so that comparing rounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fogmqtt.errors import OperatorError
from fogmqtt.images.spec import Image

#: Of a score of 1.
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
        """Those that an index array or a mask picks, in its order."""
        return type(self)(self.places[which], self.scores[which], self.classes[which])

    def order(self, last: Image | None = None) -> Image:
        """Indices by falling score, then class and place; those in the mask `last` at the end."""
        keys = [*self.places.T, self.classes, -self.scores]
        return np.lexsort(keys if last is None else [*keys, last])


def suppress_overlaps(boxes: Boxes, share: float, most: int, pieces: Image | None = None) -> Image:
    """Indices of the boxes that stay when those that say the same have gone, best first.

    A box goes where the intersection with a better one of its class is over `share` of their
    union. `pieces` masks boxes that may be parts of objects: they come after all others, and go
    also where over `share` of themselves lies in a better box. At most `most` stay.
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
    return np.array(kept, np.int64)


def _shared(one: Image, others: Image) -> tuple[Image, Image]:
    """The areas that `others` share with one box, and their own."""
    corner = np.minimum(others[:, 2:], one[2:]) - np.maximum(others[:, :2], one[:2])
    return np.maximum(corner, 0).prod(axis=1), _areas(others)


def _areas(places: Image) -> Image:
    areas: Image = (places[..., 2:] - places[..., :2]).prod(axis=-1)
    return areas


# What networks answer. Places are pixels of the window, float32.

_Raw = tuple[Image, Image, Image]


def parse_output(form: str, outputs: Sequence[Image], least: float, classes: int) -> Boxes:
    """The boxes of a network's outputs that score at least `least`.

    `form` is one of FORMS; `classes` is how many there must be, 0 for any number. Raises
    OperatorError for outputs that are not of the form.
    """
    shapes = ", ".join("x".join(str(side) for side in one.shape) for one in outputs)
    one = outputs[0] if len(outputs) == 1 else np.empty(0)
    if one.ndim != 3 or one.shape[0] != 1:
        raise OperatorError(f"dnn: the output is {shapes}, not {_SHAPES[form]}")
    rows = one[0].T if form == "yolov8" else one[0]
    if not _plausible(form, rows, classes):
        wanted = f" for {classes} classes" if classes and form != "boxes" else ""
        raise OperatorError(f"dnn: the output is {shapes}, not {_SHAPES[form]}{wanted}")
    with np.errstate(invalid="ignore"):  # networks may answer with infinities
        return _whole(FORMS[form](rows.astype(np.float64)), least)


def _plausible(form: str, rows: Image, classes: int) -> bool:
    """Whether rows have as many fields as the form; a transposed output has more than rows."""
    count, fields = int(rows.shape[0]), int(rows.shape[1])
    if form == "boxes":
        return fields == 6
    known = fields - (4 if form == "yolov8" else 5)
    return known == classes if classes else known >= 1 and fields <= count


def _yolov8(rows: Image) -> _Raw:
    scores = rows[:, 4:]
    return _corners(rows), scores.max(axis=1), scores.argmax(axis=1)


def _yolov5(rows: Image) -> _Raw:
    scores = rows[:, 5:] * rows[:, 4:5]
    return _corners(rows), scores.max(axis=1), scores.argmax(axis=1)


def _plain(rows: Image) -> _Raw:
    return rows[:, :4], rows[:, 4], rows[:, 5]


def _corners(rows: Image) -> Image:
    """From the middle, width and height."""
    half = rows[:, 2:4] / 2
    return np.hstack([rows[:, :2] - half, rows[:, :2] + half])


#: How each format is read: rows of one box each → corners, scores, classes.
FORMS: dict[str, Callable[[Image], _Raw]] = {
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "boxes": _plain,
}
_SHAPES = {
    "yolov8": "yolov8's 1 x (4 + classes) x boxes",
    "yolov5": "yolov5's 1 x boxes x (5 + classes)",
    "boxes": "1 x boxes x (left, top, right, bottom, score, class)",
}

#: Beyond any window, pixels, and any number of classes.
_FARTHEST = 100_000


def _whole(raw: _Raw, least: float) -> Boxes:
    """As whole numbers; without what scores less, and what is no box at all."""
    places, scores, classes = raw
    fine = (scores >= least) & (np.abs(places) < _FARTHEST).all(axis=1)
    fine &= (classes >= 0) & (classes < _FARTHEST)
    return Boxes(
        np.rint(places[fine] * 100).astype(np.int64),
        np.rint(np.minimum(scores[fine], 1) * SCORE_SCALE).astype(np.int64),
        classes[fine].astype(np.int64),
    )
