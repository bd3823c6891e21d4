"""Shows the progress of jobs on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from fogmqtt.gateway.jobs.report import Report
from fogmqtt.log import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds between two plain lines of one job.
LINE_S = 2.0
#: The bars of ended jobs that stay on the terminal.
ENDED_BARS = 8


class Display(Protocol):
    """Shows the progress of jobs; `close` restores the terminal.

    `end` is for a job that has ended, `print_output` for a result that belongs on stdout.
    """

    def update(self, report: Report) -> None: ...
    def end(self, report: Report) -> None: ...
    def print_line(self, text: str) -> None: ...
    def print_output(self, text: str) -> None: ...
    def close(self) -> None: ...


def open_display() -> Display:
    """Return a display on stderr: results go to stdout."""
    return BarDisplay() if sys.stderr.isatty() else PlainDisplay()


class BarDisplay:
    """Shows a bar for each job under way, and for the newest that have ended.

    It loads `rich` when the first job makes progress.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        #: The bars of jobs that have ended, oldest first.
        self._ended: deque[TaskID] = deque()

    @cached_property
    def _progress(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tiles  {task.fields[speed]}  {task.fields[devices]}"),
            console=Console(stderr=True),
            redirect_stdout=False,  # stdout may be a file, and the bars are on stderr
        )
        progress.start()
        return progress

    def update(self, report: Report) -> None:
        if report.job not in self._tasks:
            self._tasks[report.job] = self._progress.add_task(report.name, speed="", devices="")
        self._progress.update(
            self._tasks[report.job],
            total=report.tiles,
            completed=report.done,
            speed=speed(report),
            devices=shares(report),
        )

    def end(self, report: Report) -> None:
        task = self._tasks.pop(report.job, None)
        if task is not None:
            self._ended.append(task)
        if len(self._ended) > ENDED_BARS:
            self._progress.remove_task(self._ended.popleft())

    def print_line(self, text: str) -> None:
        text = printable(text)
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def print_output(self, text: str) -> None:
        if sys.stdout.isatty():  # the bars are there, too
            self.print_line(text.removesuffix("\n"))
        else:
            print(text, end="", flush=True)

    def close(self) -> None:
        if "_progress" in vars(self):
            self._progress.stop()


class PlainDisplay:
    """Prints a line for each job every LINE_S seconds, for logs and pipes."""

    def __init__(self) -> None:
        self._printed_at: dict[str, float] = {}

    def update(self, report: Report) -> None:
        is_done = report.done == report.tiles and report.tiles > 0
        moment = time.monotonic()
        if not is_done and moment - self._printed_at.get(report.job, float("-inf")) < LINE_S:
            return
        self._printed_at[report.job] = moment
        self.print_line(
            f"{report.name}: {report.done} of {report.tiles} tiles  "
            f"{speed(report)}  {shares(report)}".rstrip()
        )

    def end(self, report: Report) -> None:
        self._printed_at.pop(report.job, None)

    def print_line(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    def print_output(self, text: str) -> None:
        print(text, end="", flush=True)

    def close(self) -> None:
        """Do nothing: the terminal was not changed."""


def speed(report: Report) -> str:
    """Return the payload bytes per second in both directions; empty at the beginning."""
    if report.seconds <= 0:
        return ""
    moved = (report.bytes_out + report.bytes_back) / 1e6
    return f"{moved / report.seconds:.1f} MB/s"


def shares(report: Report) -> str:
    """Return the number of tiles of each device."""
    return "  ".join(f"{device} {share.tiles}" for device, share in sorted(report.devices.items()))
