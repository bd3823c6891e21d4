"""What makes a Python process fit for moving many tiles of a megabyte.

Freed memory is kept: a tile is over glibc's threshold for memory of its own, so each copy of one
would be mapped, faulted in page by page, and unmapped again, which costs more than copying it
(24 MP of `invert` on three devices: 0.75 of the time). And a thread gives up the interpreter
sooner than after Python's 5 ms: the network thread waits for it after every packet.
"""

from __future__ import annotations

import ctypes
import sys

#: mallopt's names for: when to trim, how much to take at once, what gets memory of its own:
#: whole images and files do, and give it back.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_MMAP_THRESHOLD: 4 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 4 << 20}
_SWITCH_S = 0.0003


def tune() -> None:
    """To be called once, at the start of a program."""
    sys.setswitchinterval(_SWITCH_S)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return  # another libc
    for name, value in _SETTINGS.items():
        mallopt(name, value)
