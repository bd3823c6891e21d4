"""Runs the conformance checks in the background, in a process of its own, and caches the report.

An operator may do anything to the process that runs it. One that crashes or hangs the process is
named and left out, and the others are checked in a new process. So the program that asks loads
neither OpenCV nor plug-ins.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from fogmqtt.conformance import cache
from fogmqtt.conformance.child import ConformanceChild
from fogmqtt.conformance.identity import identity
from fogmqtt.conformance.report import ChecksStarted, ChildOutput, ConformanceReport
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.plugins import fatal_import_text
from fogmqtt.workers.resources import cores, worker_memory_mb

log = logging.getLogger(__name__)

#: Seconds that one operator may take, on the slowest board and while it is busy.
TIMEOUT_S: Final = 60.0
#: Seconds to wait for another program on this machine that runs the checks already. A run takes
#: 1.3 s on a PC and ten times as long on a small board.
LOCK_TIMEOUT_S: Final = 30.0
#: Megabytes that suffice for the test images and a model.
ENOUGH_MB: Final = 1024


class ConformanceRunner:
    """Checks this machine's operators. Create it, then call `cached`, or `start`.

    `on_report` is called once, on another thread, unless `close` is called before. It gets a
    report even if the run fails: one that has the failure among its problems. `timeout_s` limits
    the time for one operator, and `lock_timeout_s` the wait for another program's run. Operators
    may take `memory_mb` megabytes, or all that is free for 0; the default is a worker's share, at
    most ENOUGH_MB.
    """

    def __init__(
        self,
        on_report: Callable[[ConformanceReport], None],
        *,
        timeout_s: float = TIMEOUT_S,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        memory_mb: int | None = None,
    ) -> None:
        self._on_report = on_report
        self._timeout_s = timeout_s
        self._lock_timeout_s = lock_timeout_s
        self._memory_mb = _default_memory_mb() if memory_mb is None else memory_mb
        self._place = cache.folder()
        self._closed = threading.Event()
        self._child: ConformanceChild | None = None
        self._thread = threading.Thread(target=self._run, name="conformance", daemon=True)

    def cached(self) -> ConformanceReport | None:
        """Return the report of an earlier run, if nothing that decides it has changed."""
        return cache.load(self._place, identity())

    def start(self) -> None:
        """Run the checks in the background, or take the cached report."""
        self._thread.start()

    def close(self) -> None:
        """End the run. `on_report` is not called any more."""
        self._closed.set()
        if self._child is not None:
            self._child.kill()

    def _run(self) -> None:
        try:
            report = self.cached() or self._report()
        except Exception as problem:  # without a report, no job would ever start
            log.exception("the conformance run failed")
            report = ConformanceReport(problems=[_cannot_be_checked(problem)])
        if not self._closed.is_set():
            self._on_report(report)

    def _report(self) -> ConformanceReport:
        # Several programs that start together on one machine need only one run.
        with cache.locked(self._place, self._lock_timeout_s, self._closed):
            cached = self.cached()
            if cached is not None:
                return cached
            before = identity()
            report = self._check_all()
            if not report.problems and not self._closed.is_set():
                cache.store(self._place, before, report)
            return report

    def _check_all(self) -> ConformanceReport:
        """Check all operators; start a new process after each one that ends the process."""
        modules, names = list(registry.plug_ins()), list[str]()
        report = ConformanceReport()
        while not self._closed.is_set():
            output = self._run_child(modules, names)
            if output.started is not None:
                report = _merged(report, output.started, output)
                names = output.unchecked if output.memory_used_up else output.unchecked[1:]
                if not names:
                    break
            elif output.importing in modules:
                modules.remove(output.importing)
                report.fatal[output.importing] = output.ending
                report.problems.append(fatal_import_text(output.importing, output.ending))
            else:
                report.problems.append(_cannot_be_checked(output.ending))
                break
        return report

    def _run_child(self, modules: Sequence[str], names: Sequence[str]) -> ChildOutput:
        try:
            with ConformanceChild(modules, names, self._memory_mb) as child:
                self._child = child
                if self._closed.is_set():
                    child.kill()
                return child.collect(self._timeout_s)
        except OSError as problem:
            return ChildOutput(ending=f"the process could not be run: {problem}")


def fatal_imports(modules: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> dict[str, str]:
    """Return the plug-ins whose import ends or hangs a process → how the process ended.

    `modules` must be plugged in. Plug-ins of installed packages are tried too, and named by the
    value of their entry point. A process of its own does the imports; it is not started if there
    are no plug-ins, or if the cache has a report with all of them.

    Raises OSError if the process cannot be started.
    """
    fatal: dict[str, str] = {}
    if not registry.has_plug_ins() or cache.load(cache.folder(), identity()) is not None:
        return fatal
    while True:
        with ConformanceChild(
            modules, (), _default_memory_mb(), entry_point="try_imports", fatal=fatal
        ) as child:
            output = child.collect(timeout_s)
        if output.started is not None or not output.importing:
            return fatal  # the others are harmless, or something else ended the process
        fatal[output.importing] = output.ending


def _default_memory_mb() -> int:
    return min(ENOUGH_MB, worker_memory_mb(cores()))


def _cannot_be_checked(reason: object) -> str:
    return f"operators cannot be checked: {reason}"


def _merged(
    report: ConformanceReport, started: ChecksStarted, output: ChildOutput
) -> ConformanceReport:
    """Return the report with what one more process found."""
    operators = report.operators | {one.name: one for one in output.reports}
    problems = [*started.problems, *(one.problem for one in output.reports if one.problem)]
    if output.unchecked and not output.memory_used_up:
        problems.append(f"{output.unchecked[0]}: its check {output.ending}")
    packages = {one.package: one.version for one in output.reports if one.package}
    return ConformanceReport(
        operators,
        list(dict.fromkeys((*report.problems, *problems))),
        report.versions | started.versions | packages,
        report.fatal,
    )
