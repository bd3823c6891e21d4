"""An operator that misbehaves on tiles that begin with a mark; else it inverts.

A plug-in: a copy of this file is loaded by gateway and devices, and counts beside itself how
often a tile was begun.
"""

from __future__ import annotations

import ctypes
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fogmqtt.operators.api.base import Operator

#: The first pixels of a marked tile, in gray.
MARK = (13, 200, 13, 200)
EVERY = 1_000_000


@dataclass(frozen=True)
class Unruly(Operator):
    """Inverts; a marked tile it treats as `how` says, the first `times` times it meets it."""

    name: ClassVar[str] = "unruly"
    how: str = "raises"
    times: int = EVERY

    def process(self, image: Any) -> Any:
        if tuple(image.reshape(-1)[: len(MARK)]) == MARK and self._met(image) <= self.times:
            getattr(self, f"_{self.how}")()
        return 255 - image

    def _met(self, image: Any) -> int:
        """How often this very tile was begun, this time included."""
        if self.times == EVERY:
            return 0
        seen = Path(__file__).with_name(f"tile-{zlib.crc32(image.tobytes()):08x}-{self.how}")
        with seen.open("ab") as file:
            file.write(b".")
        return seen.stat().st_size

    def _raises(self) -> None:
        raise ValueError("planted")

    def _crash(self) -> None:
        ctypes.string_at(0)

    def _eat(self) -> None:
        kept = []
        while True:
            kept.append(np.ones(8 << 20, np.uint8))

    def _hang(self) -> None:
        while True:
            time.sleep(0.01)
