"""What the spool has still to do: jobs that somebody wants tried again, ends to write down."""

from __future__ import annotations

from collections.abc import Callable

from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.storage.dead_letters import DeadLetter
from fogmqtt.gateway.storage.job_store import JobStore
from fogmqtt.gateway.storage.spool import Entry

#: Seconds between two looks; and after one that could not be accepted.
LOOK_S = 1.0
PAUSE_S = 10.0


class RetryWatcher:
    """Looks for letters in `retry/`, and has `begin` do each; as many as there is `room` for."""

    def __init__(
        self,
        archive: JobStore,
        gateway: Gateway,
        room: Callable[[], bool],
        begin: Callable[[Entry], None],
    ) -> None:
        self._archive = archive
        self._gateway = gateway
        self._room = room
        self._begin = begin
        self._look_at = 0.0
        #: One at a time: the next is asked for when this one is on disk.
        self._busy = False
        #: Those that could not be accepted: the others first.
        self._later: set[str] = set()

    def look(self, moment: float) -> float:
        """A chore: returns when to look again."""
        if moment >= self._look_at:
            self._look_at = moment + LOOK_S
            self._archive.catch_up()
            if not self._busy and self._room():
                self._take(moment)
        return self._look_at

    def _take(self, moment: float) -> None:
        asked = self._archive.dead.asked()
        if not asked:
            return
        letter = min(asked, key=lambda one: one.entry.job in self._later)
        if letter.entry.job in self._later:
            self._later.clear()
        self._busy = True
        self._gateway.loop.watch(
            self._archive.revive(letter),
            self._taken,
            lambda problem: self._not_taken(letter, problem, moment),
        )

    def _taken(self, entry: Entry | None) -> None:
        self._busy, self._look_at = False, 0.0
        if entry is not None:
            self._begin(entry)

    def _not_taken(self, letter: DeadLetter, problem: Exception, moment: float) -> None:
        self._later.add(letter.entry.job)
        others = any(one.entry.job not in self._later for one in self._archive.dead.asked())
        self._busy, self._look_at = False, moment + (LOOK_S if others else PAUSE_S)
        self._gateway.complain("retry", f"{letter.entry.job} cannot be tried again yet: {problem}")
