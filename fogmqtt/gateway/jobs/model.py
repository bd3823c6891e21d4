"""What a job is, from the request to the outcome."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fogmqtt.core.geometry import Auto, TilePlan
from fogmqtt.gateway.execution.cost_model import StageTrial
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.storage.job_journal import JobJournal
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import Facts, Operator
from fogmqtt.operators.api.pipeline import Stage
from fogmqtt.operators.api.results import TileResult


def new_job_id() -> str:
    """Random, so that a late result of another life of this gateway can never be taken for ours."""
    return "j" + secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: with an image, or with the error that says why not."""

    job: str
    report: Report
    #: The result, or a picture of the facts.
    image: Image | None = None
    #: What the job came with, decoded; None where it could not be.
    original: Image | None = None
    error: str | None = None
    #: 255 where pixels differ from one machine; None where none do, or nobody compared.
    difference: Image | None = None
    #: What a measuring pipeline found; None for any other.
    facts: Facts | None = None
    #: Whether the image itself is no reason to fail, so that it may be worth another try.
    mendable: bool = False


class Client(Protocol):
    """Who asked for a job, and hears how it goes. All but `deliver` run on the owner thread."""

    def progress(self, report: Report) -> None:
        """Tiles were merged; at most ten times a second."""

    def notice(self, job: str, text: str) -> None:
        """Something that a person would want to know: no device is there, alpha was dropped."""

    def deliver(self, outcome: Outcome) -> None:
        """The end. Runs on a pool thread, so it may encode and write. Raises FogError, OSError."""

    def ended(self, outcome: Outcome) -> None:
        """`deliver` is done; `outcome.error` says if it, or the job, failed."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """An image, what to do with it, and whom to tell.

    The image is a file (`path`), a file's bytes (`data`), or decoded already (`image`).
    """

    name: str
    pipeline: str
    client: Client
    path: Path | None = None
    data: bytes | None = None
    image: Image | None = None
    tiles: TilePlan = field(default_factory=Auto)
    post: str = ""
    verify: bool = False
    #: Each step doubles its share of the fleet's time beside other jobs.
    priority: int = 0
    job: str = field(default_factory=new_job_id)
    #: Where its progress is written down, for a serving gateway with a spool.
    journal: JobJournal | None = None
    #: Not empty if an earlier life of the gateway had this job: its late results must not count,
    #: since its tiles may have been others.
    life: str = ""


@dataclass(slots=True)
class Job:
    """A job under way; owned by the gateway's thread."""

    request: JobRequest
    report: Report
    started_at: float
    operators: tuple[Operator, ...] = ()
    post: tuple[Operator, ...] = ()
    stages: tuple[Stage, ...] = ()
    original: Image | None = None
    #: What enters the stage at work; of a measuring one, what is measured.
    measured: Image | None = None
    #: The stage at work, and its tiles where it is a tiled one.
    position: int = -1
    run: StageRun | None = None
    #: How the stage at work is done, and how well that goes.
    trial: StageTrial | None = None
    #: What a device must offer to do its tiles.
    needs: frozenset[str] = frozenset()
    #: Tiles being pasted, each with the newer result that waits for the end of that, or None.
    pasting: dict[int, TileResult | None] = field(default_factory=dict)
    finished: bool = False
    #: The outcome is known and on its way to the client.
    ending: bool = False
    told_at: float = 0.0

    @property
    def id(self) -> str:
        return self.request.job

    @property
    def key(self) -> str:
        """What the scheduler and the wire call the stage at work."""
        return f"{self.request.job}.{self.position}{self.request.life}"
