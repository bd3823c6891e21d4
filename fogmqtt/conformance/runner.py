"""Runs the conformance checks in the background, in a process of its own, and caches the report.

An operator may do anything to the process that runs it. One that crashes or hangs the process is
named and left out, and the others are checked in a new process. So the program that asks loads
neither OpenCV nor plug-ins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from fogmqtt.conformance import cache
from fogmqtt.conformance.child import ConformanceChild
from fogmqtt.conformance.identity import identity
from fogmqtt.conformance.order import FREQUENT
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
#: Seconds between two reports of a run. The first one comes as soon as it is useful.
REPORT_S: Final = 2.0
#: Megabytes that suffice for the test images and a model.
ENOUGH_MB: Final = 1024


class ConformanceRunner:
    """Checks this machine's operators. Create it, then call `cached`, or `start`.

    `on_report` is called on another thread, unless `close` is called before: a first time when the
    frequent operators are checked, then with more of them every REPORT_S seconds, and at last with
    a complete report. It gets one even if the run fails, which is then among the problems. The
    cache keeps what is checked, and the next run goes on there. `timeout_s` limits
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
        #: False once the folder could not be written, which is logged then.
        self._can_store = True
        self._last_part = ConformanceReport()
        self._reported_at = time.monotonic()
        self._closed = threading.Event()
        self._child: ConformanceChild | None = None
        self._thread = threading.Thread(target=self._run, name="conformance", daemon=True)

    def cached(self) -> ConformanceReport | None:
        """Return the complete report of earlier runs, if nothing that decides it has changed."""
        report = cache.load(self._place, identity())
        return report if report is not None and report.is_complete else None

    def start(self) -> None:
        """Run the checks in the background, or take what the cache has of them."""
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
            report = self._ended_by(problem)
        if not self._closed.is_set():
            self._on_report(report)

    def _report(self) -> ConformanceReport:
        # Several programs that start together on one machine need only one run.
        with cache.locked(self._place, self._lock_timeout_s, self._closed, self._report_cached):
            before = identity()
            cached = cache.load(self._place, before)
            if cached is not None and cached.is_complete:
                return cached
            report = self._check_all(cached or ConformanceReport(), before)
            self._store(before, report)
            return report

    def _report_cached(self) -> None:
        """Report what another program has checked so far."""
        cached = cache.load(self._place, identity())
        if cached is not None and len(cached.operators) > len(self._last_part.operators):
            self._report_part(cached)

    def _report_part(self, report: ConformanceReport) -> None:
        self._last_part, self._reported_at = report, time.monotonic()
        if not self._closed.is_set():
            self._on_report(report)

    def _store(self, identity: str, report: ConformanceReport) -> None:
        if self._can_store and not report.problems and not self._closed.is_set():
            self._can_store = cache.store(self._place, identity, report)

    def _check_all(self, report: ConformanceReport, identity: str) -> ConformanceReport:
        """Check the other operators; start a new process after each one that ends the process."""
        modules, names = list(registry.plug_ins()), report.unchecked
        if report.operators:
            self._report_part(report)
        while not self._closed.is_set():
            output = self._run_child(modules, names, partial(self._progressed, report, identity))
            if output.started is not None:
                report = _merged(report, output.started, output)
                names = report.unchecked
                if not names:
                    break
            elif output.importing in modules:
                modules.remove(output.importing)
                report.fatal[output.importing] = output.ending
                report.problems.append(fatal_import_text(output.importing, output.ending))
            else:
                report.problems.append(_cannot_be_checked(output.reason or output.ending))
                break
        return msgspec.structs.replace(report, unchecked=[])

    def _ended_by(self, problem: Exception) -> ConformanceReport:
        """Return what was reported before the run failed, with the reason."""
        problems = [*self._last_part.problems, _cannot_be_checked(problem)]
        return msgspec.structs.replace(self._last_part, problems=problems, unchecked=[])

    def _progressed(self, report: ConformanceReport, identity: str, output: ChildOutput) -> None:
        """Report and store what is checked, if it is useful and the last report is old enough."""
        if output.started is None or not output.unchecked:
            return
        if self._last_part.operators:
            is_due = time.monotonic() >= self._reported_at + REPORT_S
        else:
            is_due = not set(FREQUENT) & set(output.unchecked)
        if is_due:
            part = _with_reports(report, output.started, output)
            self._store(identity, part)
            self._report_part(part)

    def _run_child(
        self,
        modules: Sequence[str],
        names: Sequence[str],
        on_message: Callable[[ChildOutput], None],
    ) -> ChildOutput:
        try:
            with ConformanceChild(modules, names, self._memory_mb) as child:
                self._child = child
                if self._closed.is_set():
                    child.kill()
                return child.collect(self._timeout_s, on_message)
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
    """Return the report with what a process found that has ended."""
    done = _with_reports(report, started, output)
    if not done.unchecked or output.memory_used_up:
        return done
    ended, *unchecked = done.unchecked
    problems = list(dict.fromkeys((*done.problems, f"{ended}: its check {output.ending}")))
    return msgspec.structs.replace(done, problems=problems, unchecked=unchecked)


def _with_reports(
    report: ConformanceReport, started: ChecksStarted, output: ChildOutput
) -> ConformanceReport:
    """Return the report with what one more process has found so far."""
    problems = [*started.problems, *(one.problem for one in output.reports if one.problem)]
    packages = {one.package: one.version for one in output.reports if one.package}
    return ConformanceReport(
        report.operators | {one.name: one for one in output.reports},
        list(dict.fromkeys((*report.problems, *problems))),
        report.versions | started.versions | packages,
        report.fatal,
        output.unchecked,
    )
