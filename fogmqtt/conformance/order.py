"""The order in which operators are checked: a device is useful after the first of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

#: Operators that many pipelines have. All of them are quick to check.
FREQUENT: Final = ("gray", "canny", "gaussian", "blur", "median", "threshold", "otsu", "sobel")
#: Operators whose check takes longest, the longest last.
_SLOW: Final = ("adaptive", "clahe", "laplacian", "dnn", "bilateral", "codes", "denoise")


def in_order(names: Collection[str]) -> list[str]:
    """Return operators in the order in which they are checked."""
    others = (name for name in names if name not in (*FREQUENT, *_SLOW))
    return [name for name in (*FREQUENT, *others, *_SLOW) if name in names]
