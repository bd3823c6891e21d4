"""Union-find for many pairs at once: which items belong to one set."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.spec import Image


def roots(count: int, pairs: Image) -> Image:
    """Return the smallest item of each item's set, (count,) int64.

    `pairs` is (n, 2): the two items of a pair belong to one set. Each round links every root to the
    smallest of its neighbours and flattens the trees. Of any two rounds in sequence, one links each
    root to another or another to it, so the number of rounds grows with the logarithm of `count`.
    """
    parent: Image = np.arange(count)
    while True:
        ends = parent[pairs]
        ends = ends[ends[:, 0] != ends[:, 1]]
        if not len(ends):
            return parent
        np.minimum.at(parent, ends.max(axis=1), ends.min(axis=1))
        parent = _flatten(parent)


def _flatten(parent: Image) -> Image:
    while True:
        grandparent = parent[parent]
        if np.array_equal(grandparent, parent):
            return parent
        parent = grandparent
