"""The memories that a device holds: each has a version, and a message must name the right one.

Pure logic. `M` is a memory and `A` an answer of the caller.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, NamedTuple, TypeVar

M = TypeVar("M")
A = TypeVar("A")

#: What a device does with a message: `apply` does a frame after the ones before; `begin` does it as
#: the first one that the memory knows; `load` takes a copy of a memory; `save` answers with one.
Deed = Literal["apply", "begin", "load", "save"]
#: Answers that are remembered for each memory, in case that they are asked for again.
MOST_ANSWERS: Final = 4


class MemoryKey(NamedTuple):
    """Identifies a memory: one tile of a gateway's stream."""

    gateway: str
    stream: str
    tile: int


@dataclass(frozen=True, slots=True)
class Ask:
    """What a message says of the memory that it applies to."""

    deed: Deed
    epoch: int
    attempt: int
    after: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The memory has the version `have`; -1 if there is none of the epoch."""

    have: int


@dataclass(frozen=True, slots=True)
class Remembered(Generic[A]):
    """The message was done before, and this was the answer."""

    answer: A


@dataclass(frozen=True, slots=True)
class Granted(Generic[M]):
    """The message applies to this memory; None for an empty one."""

    memory: M | None


@dataclass(slots=True)
class _Entry(Generic[M, A]):
    epoch: int
    #: The attempt that it began with. A message of an earlier one must not begin it again.
    attempt: int
    version: int
    memory: M
    nbytes: int
    used_at: float
    #: Version before → answer.
    answers: OrderedDict[int, A] = field(default_factory=OrderedDict)


class MemoryStore(Generic[M, A]):
    """Memories by key. Those that are used least are dropped where all need over `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        #: The one that was used last is at the end.
        self._entries: OrderedDict[MemoryKey, _Entry[M, A]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """What all memories need."""
        return sum(one.nbytes for one in self._entries.values())

    def look(self, key: MemoryKey, ask: Ask) -> Granted[M] | Remembered[A] | Mismatch:
        """Return the memory for a message, or why it gets none.

        After the work, `keep` a granted memory, or `drop` it if the work failed.
        """
        entry = self._entries.get(key)
        if ask.deed in ("begin", "load"):
            if entry is not None and (ask.epoch, ask.attempt) <= (entry.epoch, entry.attempt):
                return self._again(entry, ask)
            self._entries.pop(key, None)
            return Granted(None)
        if entry is None or entry.epoch != ask.epoch:
            return Mismatch(-1)
        if entry.version != ask.after:
            return self._again(entry, ask)
        return Granted(entry.memory)

    def keep(
        self, key: MemoryKey, ask: Ask, memory: M, nbytes: int, answer: A | None, now: float
    ) -> bool:
        """Store the memory after a message's work; False if it is too large for all of the room.

        `answer` is remembered; None for a message that changed nothing but a version.
        """
        entry = self._entries.pop(key, None)
        if entry is None or ask.deed in ("begin", "load"):
            entry = _Entry(ask.epoch, ask.attempt, ask.after, memory, nbytes, now)
        entry.memory, entry.nbytes, entry.used_at = memory, nbytes, now
        if ask.deed in ("apply", "begin"):
            entry.version = ask.after + 1
        if answer is not None:
            entry.answers[ask.after] = answer
            while len(entry.answers) > MOST_ANSWERS:
                entry.answers.popitem(last=False)
        if nbytes > self._max_bytes:
            return False
        self._entries[key] = entry
        while self.nbytes > self._max_bytes:
            self._entries.popitem(last=False)
        return True

    def drop(self, key: MemoryKey) -> None:
        """Forget a memory, for example since the work on it failed."""
        self._entries.pop(key, None)

    def drop_stream(self, gateway: str, stream: str) -> None:
        """Forget all memories of a stream."""
        for key in [one for one in self._entries if one[:2] == (gateway, stream)]:
            del self._entries[key]

    def expire(self, before: float) -> None:
        """Forget what was not used since `before`."""
        for key in [key for key, one in self._entries.items() if one.used_at < before]:
            del self._entries[key]

    def _again(self, entry: _Entry[M, A], ask: Ask) -> Remembered[A] | Mismatch:
        if entry.epoch != ask.epoch:
            return Mismatch(-1)
        answer = entry.answers.get(ask.after) if ask.deed in ("apply", "begin") else None
        return Mismatch(entry.version) if answer is None else Remembered(answer)
