"""How a job goes, for the person at the terminal: a bar there, plain lines elsewhere."""

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
    """Shows jobs; `close` leaves the terminal as it was."""

    def update(self, report: Report) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


def display(console: Console) -> Display:
    """A display for this console, which is stderr: stdout belongs to results."""
    return BarDisplay(console) if console.is_terminal else PlainDisplay(console)


class BarDisplay:
    """One live bar per job."""

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

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self._progress.stop()


class PlainDisplay:
    """A line now and then, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_at: dict[str, float] = {}

    def update(self, report: Report) -> None:
        over = report.done == report.tiles and report.tiles > 0
        moment = time.monotonic()
        if not over and moment - self._said_at.get(report.job, float("-inf")) < LINE_S:
            return
        self._said_at[report.job] = moment
        self.say(
            f"{report.name}: {report.done} of {report.tiles} tiles  "
            f"{speed(report)}  {shares(report)}".rstrip()
        )

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to undo."""


def speed(report: Report) -> str:
    """Payload bytes moved both ways, per second."""
    if report.seconds <= 0:
        return ""
    moved = (report.bytes_out + report.bytes_back) / 1e6
    return f"{moved / report.seconds:.1f} MB/s"


def shares(report: Report) -> str:
    return "  ".join(f"{device} {share.tiles}" for device, share in sorted(report.devices.items()))


def who_did_what(report: Report) -> Table:
    """The table of devices."""
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
