"""Has the operators examined, in a process of its own and in the background, or remembers.

The process does what operators do to it: one that crashes or hangs is named, left out, and costs
the others a new process. So the program that asks needs neither OpenCV nor patience.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from fogmqtt.conformance import cache
from fogmqtt.conformance.child import ConformanceChild
from fogmqtt.conformance.identity import identity
from fogmqtt.conformance.report import Attempt, Began, ConformanceReport
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.plugins import fatality
from fogmqtt.workers.resources import cores, worker_memory_mb

#: Seconds that one operator may take, on the slowest board and while it is busy.
PATIENCE_S: Final = 60.0
#: Megabytes that suffice for our small pictures, and a model besides.
ENOUGH_MB: Final = 1024

Deliver = Callable[[ConformanceReport], None]


class ConformanceRunner:
    """Finds out what this machine's operators do. Make it, ask `known`, or `start` it.

    `deliver` is called on another thread, once, unless `close` comes first. `memory_mb` is what
    operators may take, 0 for what there is; unless said, what a worker may, and no more than
    ENOUGH_MB.
    """

    def __init__(
        self, deliver: Deliver, *, patience_s: float = PATIENCE_S, memory_mb: int | None = None
    ) -> None:
        self._deliver = deliver
        self._patience_s = patience_s
        self._memory_mb = _share_mb() if memory_mb is None else memory_mb
        self._place = cache.folder()
        self._closed = threading.Event()
        self._child: ConformanceChild | None = None
        self._thread = threading.Thread(target=self._run, name="examiner", daemon=True)

    def known(self) -> ConformanceReport | None:
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

    def _found(self) -> ConformanceReport:
        # Several programs that start at once on one machine need only one examination.
        with cache.alone(self._place):
            known = self.known()
            if known is not None:
                return known
            before = identity()
            found = self._examine()
            if not found.problems and not self._closed.is_set():
                cache.store(self._place, before, found)
            return found

    def _examine(self) -> ConformanceReport:
        """Start anew behind whatever ends the process."""
        modules, names = list(registry.plug_ins()), list[str]()
        found = ConformanceReport()
        while not self._closed.is_set():
            tried = self._try(modules, names)
            if tried.began is not None:
                found = _with(found, tried.began, tried)
                names = tried.left if tried.worn else tried.left[1:]
                if not names:
                    break
            elif tried.importing in modules:
                modules.remove(tried.importing)
                found.fatal[tried.importing] = tried.ending
                found.problems.append(fatality(tried.importing, tried.ending))
            else:
                found.problems.append(f"operators cannot be examined: {tried.ending}")
                break
        return found

    def _try(self, modules: Sequence[str], names: Sequence[str]) -> Attempt:
        try:
            with ConformanceChild(modules, names, self._memory_mb) as child:
                self._child = child
                if self._closed.is_set():
                    child.kill()
                return child.listen(self._patience_s)
        except OSError as problem:
            return Attempt(ending=f"broke off: {problem}")


def fatal_imports(modules: Sequence[str], *, patience_s: float = PATIENCE_S) -> dict[str, str]:
    """Which plug-ins end or hang a process that imports them, each with how.

    Of these modules, which must be plugged in, and of the packages that are installed, whose
    entry points are told by their values. Tried in a process of its own, unless all of them were
    examined before, or there are none. Raises OSError where no process can be started.
    """
    fatal: dict[str, str] = {}
    if not registry.has_plug_ins() or cache.load(cache.folder(), identity()) is not None:
        return fatal
    while True:
        with ConformanceChild(modules, (), _share_mb(), work="try_imports", fatal=fatal) as child:
            tried = child.listen(patience_s)
        if tried.began is not None or not tried.importing:
            return fatal  # all others are harmless, or it is not they who ended it
        fatal[tried.importing] = tried.ending


def _share_mb() -> int:
    return min(ENOUGH_MB, worker_memory_mb(cores()))


def _with(found: ConformanceReport, began: Began, tried: Attempt) -> ConformanceReport:
    """What is known after another process."""
    operators = found.operators | {one.name: one for one in tried.found}
    told = [*began.problems, *(one.problem for one in tried.found if one.problem)]
    if tried.left and not tried.worn:
        told.append(f"{tried.left[0]}: its examination {tried.ending}")
    packages = {one.package: one.version for one in tried.found if one.package}
    return ConformanceReport(
        operators,
        list(dict.fromkeys((*found.problems, *told))),
        found.versions | began.versions | packages,
        found.fatal,
    )
