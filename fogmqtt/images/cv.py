"""OpenCV with the settings of this project, loaded when one of its names is used.

`fogmqtt/__init__.py`, which runs before every import, turns IPP off and silences its warning. All
modules use `from fogmqtt.images.cv import cv2`, so that OpenCV is set up in one place. A gateway
cuts and sends its first tiles without it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

__all__ = ["cv2", "load", "one_thread", "rounds_by_ipp", "threads"]

_LOG_ERRORS: Final = 2  # cv2.utils.logging.LOG_LEVEL_ERROR

if TYPE_CHECKING:
    import cv2
else:

    class _OpenCV:
        """Has the names of the module cv2."""

        def __getattr__(self, name: str) -> object:
            load()
            import cv2 as loaded

            value = getattr(loaded, name)
            setattr(self, name, value)  # the next use finds it without this method
            return value

    cv2 = _OpenCV()

_lock = threading.Lock()
_is_loaded = False
#: The threads that OpenCV may use; None for its own choice.
_threads: int | None = None


def load() -> None:
    """Load OpenCV, unless it is loaded. Raises ImportError."""
    global _is_loaded
    if _is_loaded:
        return
    import cv2 as loaded

    with _lock:
        if _threads is not None and not _is_loaded:
            loaded.setNumThreads(_threads)
        _is_loaded = True


def one_thread() -> None:
    """Load OpenCV, and let it compute on the calling thread only: the workers fill the cores."""
    threads(1)
    load()


def threads(count: int) -> None:
    """Let OpenCV compute on so many threads: it does not know every kind of CPU quota."""
    global _threads
    with _lock:
        _threads = count
        if _is_loaded:
            cv2.setNumThreads(count)


def rounds_by_ipp() -> bool:
    """Whether OpenCV uses IPP in this process after all.

    It decides at its first use, so a program that used it before it imported this package has it.
    """
    if not hasattr(cv2, "ipp"):
        return False
    # At its first use, OpenCV warns on stderr that our setting turns IPP off.
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(_LOG_ERRORS)
    try:
        return bool(cv2.ipp.useIPP())
    finally:
        cv2.utils.logging.setLogLevel(level)
