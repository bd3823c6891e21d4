"""What an earlier life of the gateway did of a job, as its ledger tells."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PastTile:
    """Where a finished tile lies on its tape."""

    device: str
    start: int
    length: int
    digest: str


@dataclass(frozen=True, slots=True)
class PastStage:
    """What an earlier life did of a stage."""

    token: str
    kind: str
    plan: bytes
    tiles: dict[int, PastTile]
    #: Tiles for which two halves stand: the three indices, in the order in which they were halved.
    halved: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier life did of a job."""

    stages: dict[int, PastStage] = field(default_factory=dict)
    #: Where its results go in the outbox, once that was decided; and whether they are there.
    image_file: str | None = None
    facts_file: str | None = None
    filed: bool = False
    #: It was over, all but forgotten.
    ended: bool = False
    error: str | None = None
