"""A limit for the memory of a process that runs foreign operators."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: For the environment of a process with a limit. The linear algebra of NumPy and OpenCV, of which
#: nothing here needs a second thread, starts one for each core. Such a thread takes memory some
#: time after its start, and crashes the process if it gets none.
ONE_BLAS_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}

_STATM = Path("/proc/self/statm")

#: An idle worker that uses more than this part of its limit is replaced: the next tile would fail.
_REPLACE_ABOVE = 0.75

#: Untouched memory. It is large enough to have a mapping of its own, which ends when it is freed.
_RESERVE_BYTES = 8 << 20


class MemoryLimit:
    """Limits the memory that operators may allocate, beyond what the process uses at first.

    With `memory_mb` of 0 there is no limit, and where `data_bytes` does not know what is used.
    """

    def __init__(self, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        self._limit = 0
        #: Memory with which an operator's MemoryError can be handled: `lifted` needs some itself.
        self.reserve: bytes | None = None
        if memory_mb and data_bytes():
            self.reserve = bytes(_RESERVE_BYTES)
            self._limit = data_bytes() + (memory_mb << 20)
            self._replace_above = self._limit - int((1 - _REPLACE_ABOVE) * (memory_mb << 20))
            limit_data(self._limit)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Set no limit for a while, because the report of a MemoryError needs memory itself."""
        if not self._limit:
            yield
            return
        limit_data(None)
        try:
            yield
        finally:
            self.reserve = bytes(_RESERVE_BYTES)
            limit_data(self._limit)

    def is_nearly_used_up(self) -> bool:
        """Return whether too little memory is left for another tile."""
        return bool(self._limit) and data_bytes() > self._replace_above


def limit_data(limit: int | None) -> None:
    """Limit the data segment of this process to `limit` bytes, or to the user's limit if None."""
    import resource

    # RLIMIT_DATA counts the memory that is private to the process. RLIMIT_AS would also count the
    # shared memory of the tiles and all libraries.
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if limit is None:
        limit = hard
    elif hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def release_free_memory() -> None:
    """Return memory that was freed to the system; the allocator keeps some for the next use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # not every libc has it
        trim(0)


def data_bytes() -> int:
    """Return the memory of this process that RLIMIT_DATA counts, in bytes; 0 if it is unknown.

    Only Linux tells it, in /proc, which not every container has.
    """
    try:
        pages = _STATM.read_text("ascii").split()[5]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGESIZE")
