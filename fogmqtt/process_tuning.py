"""Settings that make a Python process fast at moving many tiles of a megabyte.

The process keeps freed memory. A tile is larger than the size from which glibc gives an allocation
its own mapping. So each copy of a tile would be mapped, faulted in page by page, and unmapped
again, which costs more than the copy itself. With kept memory, 24 MP of `invert` on three devices
take 0.75 of the time. A thread also releases the interpreter sooner than after Python's 5 ms,
because the network thread waits for the interpreter after every packet.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

#: The mallopt options: when to return memory, how much to request at once, and from which size an
#: allocation gets its own mapping. Whole images and files get one, and return it when they are
#: freed.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_MMAP_THRESHOLD: 4 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 4 << 20}
#: The largest size that glibc accepts for `_MMAP_THRESHOLD`.
_LARGEST_KEPT = 32 << 20
_SWITCH_INTERVAL_S = 0.0003
#: The same in the environment of a broker that we start. Other C libraries ignore it.
KEPT_MEMORY: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(_SETTINGS[_MMAP_THRESHOLD]),
    "MALLOC_TRIM_THRESHOLD_": str(_SETTINGS[_TRIM_THRESHOLD]),
    "MALLOC_TOP_PAD_": str(_SETTINGS[_TOP_PAD]),
}


def tune() -> None:
    """Apply the settings to this process. Call it once, when the program starts."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    _apply(_SETTINGS)


def keep_frames() -> None:
    """Keep freed memory of the size of a frame, too. For a process that makes one after the other.

    A Full HD frame has 6 MB. With a mapping of its own for each, the conversion to it takes up to
    eight times as long.
    """
    _apply({_MMAP_THRESHOLD: _LARGEST_KEPT})


def _apply(settings: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return  # a libc without mallopt
    for name, value in settings.items():
        mallopt(name, value)
