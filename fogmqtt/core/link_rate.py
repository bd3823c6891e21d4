"""The rate of a link, measured from what arrives at its end, and when a codec pays on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Final

#: A busy time with fewer bytes says more about latency than about the rate, …
_LEAST_BYTES: Final = 32_768
#: … and so does one that is shorter, unless it carried many bytes: on a busy machine a message of
#: 40 kB takes as long over loopback as over a link of 100 Mbit/s.
_LEAST_S: Final = 0.25
_MANY_BYTES: Final = 1_000_000
#: A busy time ends after so many seconds or bytes, so that a change of the rate shows.
_LONGEST_S: Final = 5.0
_MOST_BYTES: Final = 8_000_000
#: Measurements that count. A busy machine only makes a link seem slower, so the second fastest of
#: them counts; the fastest may be due to arrivals that were read together.
_KEPT: Final = 12
#: A message that does not arrive within so many seconds is forgotten.
_FORGET_S: Final = 120.0


class LinkRate:
    """Measures bytes per second while messages are on their way. `at` is in monotonic seconds."""

    def __init__(self) -> None:
        #: Bytes of the messages on their way, and when they were sent.
        self._in_flight: dict[Hashable, tuple[int, float]] = {}
        self._busy_since = 0.0
        self._arrived_bytes = 0
        self._rates: deque[float] = deque(maxlen=_KEPT)

    @property
    def bytes_per_s(self) -> float | None:
        """The rate; None before the second measurement."""
        return sorted(self._rates)[-2] if len(self._rates) > 1 else None

    def sent(self, key: Hashable, nbytes: int, at: float) -> None:
        """A message was handed to the link."""
        while self._in_flight and self._oldest_sent_at() < at - _FORGET_S:
            del self._in_flight[next(iter(self._in_flight))]
        if not self._in_flight:
            self._begin(at)
        self._in_flight[key] = nbytes, at

    def arrived(self, key: Hashable, at: float) -> bool:
        """A message is at the other end. False if it was not on its way."""
        message = self._in_flight.pop(key, None)
        if message is None:
            return False
        self._arrived_bytes += message[0]
        seconds = max(at - self._busy_since, 1e-6)
        if self._tells_rate(seconds):
            self._rates.append(self._arrived_bytes / seconds)
        if seconds > _LONGEST_S or self._arrived_bytes > _MOST_BYTES:
            self._begin(at)
        return True

    def lost(self, key: Hashable) -> None:
        """A message does not arrive, or nobody will know."""
        self._in_flight.pop(key, None)

    def reset(self) -> None:
        """Nothing is on its way any more."""
        self._in_flight.clear()

    def _tells_rate(self, seconds: float) -> bool:
        least_bytes = _LEAST_BYTES if seconds >= _LEAST_S else _MANY_BYTES
        return self._arrived_bytes >= least_bytes

    def _oldest_sent_at(self) -> float:
        return next(iter(self._in_flight.values()))[1]

    def _begin(self, at: float) -> None:
        self._busy_since, self._arrived_bytes = at, 0


class Compression:
    """What a codec saves and costs, learned from what it encoded."""

    def __init__(self, ratio: float = 0.6, seconds_per_byte: float = 3.5e-8) -> None:
        """`ratio` is encoded bytes over raw ones; the seconds are per raw byte, both ways.

        The defaults are those of a photograph on a core that has other work: `png` pays up to
        100 Mbit/s.
        """
        self._ratio = ratio
        self._seconds_per_byte = seconds_per_byte

    def learn(self, raw_bytes: int, encoded_bytes: int, seconds: float) -> None:
        """The codec took so long to encode these bytes, on a machine as busy as now.

        Decoding takes about half as long.
        """
        if raw_bytes < _LEAST_BYTES:
            return  # its time is that of the call
        self._ratio += (encoded_bytes / raw_bytes - self._ratio) / 2
        self._seconds_per_byte += (1.5 * seconds / raw_bytes - self._seconds_per_byte) / 2

    def pays(self, bytes_per_s: float | None) -> bool:
        """Whether a link of this rate needs longer for the saved bytes than the codec for all."""
        if bytes_per_s is None:
            return False
        return (1 - self._ratio) / bytes_per_s > self._seconds_per_byte
