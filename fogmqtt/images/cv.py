"""OpenCV with the settings of this project.

`fogmqtt/__init__.py`, which runs before every import, turns IPP off and silences its warning. All
modules use `from fogmqtt.images.cv import cv2`, so that OpenCV is set up in one place.
"""

from __future__ import annotations

import cv2

__all__ = ["cv2", "one_thread"]


def one_thread() -> None:
    """Let OpenCV compute on the calling thread only, because the workers fill the cores."""
    cv2.setNumThreads(1)
