"""OpenCV as this project runs it.

IPP is off and its warning silenced by `fogmqtt/__init__.py`, which every import passes first.
Everybody says `from fogmqtt.images.cv import cv2`, so that there is one place to set it up.
"""

from __future__ import annotations

import cv2

__all__ = ["cv2", "one_thread"]


def one_thread() -> None:
    """Make OpenCV work on the calling thread alone: our own workers fill the cores."""
    cv2.setNumThreads(1)
