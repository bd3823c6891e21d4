"""Which things are one, from pairs that are: union-find for many pairs at once."""

from __future__ import annotations

import numpy as np

from fogmqtt.images.spec import Image


def roots(count: int, pairs: Image) -> Image:
    """For each of `count` things the smallest that it is one with, int64; `pairs` is (n, 2).

    Each turn hooks every root to the smallest of its neighbours and flattens the trees. In two
    turns a root is hooked or is hooked to, so turns grow with the logarithm of `count`.
    """
    parent: Image = np.arange(count)
    while True:
        ends = parent[pairs]
        ends = ends[ends[:, 0] != ends[:, 1]]
        if not len(ends):
            return parent
        np.minimum.at(parent, ends.max(axis=1), ends.min(axis=1))
        parent = _flat(parent)


def _flat(parent: Image) -> Image:
    while True:
        beyond = parent[parent]
        if np.array_equal(beyond, parent):
            return parent
        parent = beyond
