"""Every job's progress on its own retained topic, whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fogmqtt.gateway.jobs import Client, Outcome
from fogmqtt.gateway.loop import now
from fogmqtt.gateway.report import Report
from fogmqtt.wire.messages import JobStatus

#: Seconds between two words about the same job.
EVERY_S = 1.0

State = Literal["accepted", "running", "waiting", "done", "failed"]
Say = Callable[[JobStatus], None]


def status(report: Report, state: State, error: str | None = None) -> JobStatus:
    """How a job goes, as it travels."""
    return JobStatus(
        job=report.job,
        state=state,
        pipeline=report.pipeline,
        done=report.done,
        total=report.tiles,
        devices={device: share.tiles for device, share in report.devices.items()},
        seconds=round(report.seconds, 3),
        dropped=report.dropped,
        error=error,
    )


@dataclass(slots=True)
class Broadcast:
    """A client that says everything to everybody before it tells the real one."""

    client: Client
    say: Say
    said_at: float = float("-inf")

    def progress(self, report: Report) -> None:
        if now() - self.said_at >= EVERY_S:
            self.said_at = now()
            self.say(status(report, "running"))
        self.client.progress(report)

    def notice(self, job: str, text: str) -> None:
        self.client.notice(job, text)

    def deliver(self, outcome: Outcome) -> None:
        self.client.deliver(outcome)

    def ended(self, outcome: Outcome) -> None:
        self.say(status(outcome.report, "failed" if outcome.error else "done", outcome.error))
        self.client.ended(outcome)
