"""Has the operators examined, in a process of its own and in the background, or remembers.

The process does what operators do to it: one that crashes or hangs is named, left out, and costs
the others a new process. So the program that asks needs neither OpenCV nor patience.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import msgspec

from fogmqtt.examination import cache
from fogmqtt.examination.child import Child
from fogmqtt.examination.findings import Examination, Examined
from fogmqtt.examination.identity import identity
from fogmqtt.operators import catalog

#: Seconds that one operator may take, on the slowest board and while it is busy.
PATIENCE_S: Final = 60.0

Deliver = Callable[[Examination], None]

_VERSIONS = msgspec.json.Decoder(dict[str, str])
_EXAMINED = msgspec.json.Decoder(Examined)


class Examiner:
    """Finds out what this machine's operators do. Make it, ask `known`, or `start` it.

    `deliver` is called on another thread, once, unless `close` comes first.
    """

    def __init__(self, deliver: Deliver, *, patience_s: float = PATIENCE_S) -> None:
        self._deliver = deliver
        self._patience_s = patience_s
        self._place = cache.folder()
        self._closed = threading.Event()
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._run, name="examiner", daemon=True)

    def known(self) -> Examination | None:
        """What was found at an earlier start, if nothing changed since."""
        return cache.load(self._place, identity())

    def start(self) -> None:
        """Examine in the background."""
        self._thread.start()

    def close(self) -> None:
        """End it, examined or not."""
        self._closed.set()
        if self._child is not None:
            self._child.kill()

    def _run(self) -> None:
        found = self.known() or self._found()
        if not self._closed.is_set():
            self._deliver(found)

    def _found(self) -> Examination:
        # Several programs that start at once on one machine need only one examination.
        with cache.alone(self._place):
            known = self.known()
            if known is not None:
                return known
            before = identity()
            found = self._examine(list(catalog.names()))
            if not found.problems and not self._closed.is_set():
                cache.store(self._place, before, found)
            return found

    def _examine(self, names: list[str]) -> Examination:
        operators: dict[str, Examined] = {}
        problems: list[str] = []
        versions: dict[str, str] = {}
        while names and not self._closed.is_set():
            versions, found, why = self._try(names)
            if not versions:
                return Examination(problems=[f"operators cannot be examined: {why}"])
            operators |= {one.name: one for one in found}
            names = names[len(found) :]
            if names:
                problems.append(f"{names[0]}: its examination {why}")
                names = names[1:]
        problems += [one.problem for one in operators.values() if one.problem]
        versions |= {one.package: one.version for one in operators.values() if one.package}
        return Examination(operators, problems, versions)

    def _try(self, names: list[str]) -> tuple[dict[str, str], list[Examined], str]:
        """The versions, those of the operators that one process came through, how it ended."""
        versions: dict[str, str] = {}
        found: list[Examined] = []
        try:
            with Child(names) as child:
                self._child = child
                if self._closed.is_set():
                    child.kill()
                for line in child.lines(self._patience_s):
                    if versions:
                        found.append(_EXAMINED.decode(line))
                    else:
                        versions = _VERSIONS.decode(line)
                return versions, found, child.ending()
        except (OSError, msgspec.MsgspecError) as problem:
            return versions, found, f"broke off: {problem}"
