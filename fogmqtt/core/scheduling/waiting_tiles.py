"""Tiles of one job that wait for any able device, by size.

A device gets the largest tile that suits it. Tiles of similar size keep their order of arrival.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class _Sized(Protocol):
    @property
    def pixels(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class WaitingTiles(Generic[T]):
    """A queue with one bucket per power of two of pixels."""

    def __init__(self) -> None:
        # OrderedDict, because a plain dict finds its first key slowly after many removals.
        self._buckets: dict[int, OrderedDict[T, None]] = {}
        self._count = 0
        #: The pixels of all tiles here.
        self.pixels = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, tile: T) -> bool:
        return tile in self._buckets.get(_bucket(tile), ())

    def __iter__(self) -> Iterator[T]:
        """Tiles by size, the largest first."""
        for bucket in sorted(self._buckets, reverse=True):
            yield from self._buckets[bucket]

    @property
    def largest(self) -> T:
        """A tile of the largest size. Raises ValueError if no tile waits."""
        return next(iter(self._buckets[max(self._buckets)]))

    def add(self, tile: T, *, first: bool = False) -> None:
        bucket = self._buckets.setdefault(_bucket(tile), OrderedDict())
        if tile not in bucket:
            self._count += 1
            self.pixels += tile.pixels
        bucket[tile] = None
        if first:
            bucket.move_to_end(tile, last=False)

    def remove(self, tile: T) -> None:
        """Raises KeyError for a tile that does not wait here."""
        key = _bucket(tile)
        del self._buckets[key][tile]
        self._count -= 1
        self.pixels -= tile.pixels
        if not self._buckets[key]:
            del self._buckets[key]

    def pick(self, pixels: float) -> T:
        """The next of the largest tiles of at most this many pixels, else of the smallest.

        Raises IndexError if no tile waits.
        """
        if not self._buckets:
            raise IndexError("no tile waits")
        for key in sorted(self._buckets, reverse=True):
            tile = next(iter(self._buckets[key]))
            if tile.pixels <= pixels:
                break
        return tile


def _bucket(tile: _Sized) -> int:
    return tile.pixels.bit_length()
