"""Memory for pictures that one process writes and another one maps, read-only.

It is passed as a descriptor, so it needs no /dev/shm. Where the system can seal it, nobody can
shorten it afterwards: a shortened mapping would end the process that reads it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading

from fogmqtt.workers.channel import open_memory, reserve

#: Memory grows in such steps, so that JPEGs of varying sizes fit the same piece.
_STEP = 1 << 18
_HAS_SEALS = hasattr(fcntl, "F_ADD_SEALS") and hasattr(os, "memfd_create")


def create(size: int) -> int:
    """Return the descriptor of memory of this size. Raises OSError if the machine has none left."""
    if not _HAS_SEALS:
        descriptor = open_memory()
    else:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        descriptor = os.memfd_create("fogmqtt-frame", flags)
    try:
        reserve(descriptor, size)
        if _HAS_SEALS:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_for_writing(descriptor: int) -> mmap.mmap:
    """Map memory that this process created."""
    return mmap.mmap(descriptor, os.fstat(descriptor).st_size)


def map_for_reading(descriptor: int) -> mmap.mmap:
    """Map memory of another process and close the descriptor.

    Raises ValueError if that process could shorten it, and OSError.
    """
    try:
        if _HAS_SEALS and not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise ValueError("the memory of a picture could be shortened")
        size = os.fstat(descriptor).st_size
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


class Slots:
    """Up to `limit` pieces of memory. One thread takes and fills, another one gives back."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._maps: list[mmap.mmap | None] = []
        #: The slot that was given back last is taken first: fewer pages are touched.
        self._free: list[int] = []

    def take(self) -> int:
        """Return a free slot; waits for one."""
        with self._changed:
            if not self._free and len(self._maps) < self._limit:
                self._maps.append(None)
                return len(self._maps) - 1
            self._changed.wait_for(lambda: self._free)
            return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Make a slot free."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify_all()

    def memory(self, slot: int, size: int) -> tuple[mmap.mmap, int | None]:
        """Return memory of a taken slot for this size; and its descriptor, if it is new.

        The caller closes the descriptor. Raises OSError if the machine has no memory left.
        """
        mapped = self._maps[slot]
        if mapped is not None and len(mapped) >= size:
            return mapped, None
        descriptor = create(-(-max(size, 1) // _STEP) * _STEP)
        try:
            mapped = self._maps[slot] = map_for_writing(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        return mapped, descriptor
