"""Shows the progress of jobs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from fogmqtt.gateway.jobs.report import Report

#: Seconds between two plain lines of one job.
LINE_S = 2.0


class Display(Protocol):
    """Shows the progress of jobs; `close` restores the terminal."""

    def update(self, report: Report) -> None: ...
    def print_line(self, text: str) -> None: ...
    def close(self) -> None: ...


def open_display(console: Console) -> Display:
    """Return a display for this console, which is stderr: results go to stdout."""
    return BarDisplay(console) if console.is_terminal else PlainDisplay(console)


class BarDisplay:
    """Shows a bar for each job."""

    def __init__(self, console: Console) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tiles  {task.fields[speed]}  {task.fields[devices]}"),
            console=console,
        )
        self._progress.start()

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

    def print_line(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self._progress.stop()


class PlainDisplay:
    """Prints a line for each job every LINE_S seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
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

    def print_line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

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


def device_table(report: Report) -> Table:
    """Return a table of the devices and their shares of a job."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device")
    for heading in ("tiles", "pixels", "share"):
        table.add_column(heading, justify="right")
    pixels = sum(share.pixels for share in report.devices.values()) or 1
    for device, share in sorted(report.devices.items()):
        table.add_row(
            device, str(share.tiles), f"{share.pixels:,}", f"{100 * share.pixels / pixels:.0f} %"
        )
    return table
