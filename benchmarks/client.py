"""Jobs of a benchmark: submitted to a gateway, and run to their end."""

from __future__ import annotations

from dataclasses import dataclass

from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.images.spec import Image


@dataclass
class Client:
    """Keeps the outcome."""

    outcome: Outcome | None = None

    def progress(self, report: Report) -> None: ...
    def notice(self, job: str, text: str) -> None: ...
    def deliver(self, outcome: Outcome) -> None: ...

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome


def job(gateway: Gateway, image: Image, pipeline: str) -> Report:
    """One job, to its end. Raises AssertionError if it fails."""
    client = Client()
    gateway.submit(JobRequest("bench", pipeline, client, image=image))
    gateway.run(lambda: gateway.conductor.idle)
    assert client.outcome is not None
    assert client.outcome.error is None, client.outcome.error
    return client.outcome.report
