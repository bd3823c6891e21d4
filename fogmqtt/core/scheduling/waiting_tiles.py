"""Tiles of one job that wait for any able device, by size.

A device gets the largest tile that suits it; between tiles of about the same size the order of
arrival decides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fogmqtt.core.scheduling.state import TileState


class WaitingTiles:
    """A queue with shelves: one for each power of two of pixels."""

    def __init__(self) -> None:
        # Ordered for their heads: a dict's is slow to find again after many removals.
        self._shelves: dict[int, OrderedDict[TileState, None]] = {}
        self._count = 0
        #: Of all tiles that wait here.
        self.pixels = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, tile: TileState) -> bool:
        return tile in self._shelves.get(_shelf(tile), ())

    def __iter__(self) -> Iterator[TileState]:
        """The largest first."""
        for shelf in sorted(self._shelves, reverse=True):
            yield from self._shelves[shelf]

    @property
    def largest(self) -> TileState:
        """Raises ValueError where no tile waits."""
        return next(iter(self._shelves[max(self._shelves)]))

    def add(self, tile: TileState, *, first: bool = False) -> None:
        shelf = self._shelves.setdefault(_shelf(tile), OrderedDict())
        if tile not in shelf:
            self._count += 1
            self.pixels += tile.pixels
        shelf[tile] = None
        if first:
            shelf.move_to_end(tile, last=False)

    def remove(self, tile: TileState) -> None:
        """Raises KeyError for a tile that does not wait here."""
        key = _shelf(tile)
        del self._shelves[key][tile]
        self._count -= 1
        self.pixels -= tile.pixels
        if not self._shelves[key]:
            del self._shelves[key]

    def pick(self, pixels: float) -> TileState:
        """The next of the largest that has at most so many pixels; else of the smallest.

        Raises IndexError where no tile waits.
        """
        if not self._shelves:
            raise IndexError("no tile waits")
        for key in sorted(self._shelves, reverse=True):
            tile = next(iter(self._shelves[key]))
            if tile.pixels <= pixels:
                break
        return tile


def _shelf(tile: TileState) -> int:
    return tile.pixels.bit_length()
