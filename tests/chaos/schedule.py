"""What goes wrong when, and what is to be done meanwhile: a pure function of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.weather import CORRUPT, WEATHERS

GATEWAY, BROKER = "mariem", "broker"
DEVICES = ("eya", "oumayma", "manar")
PARTIES = (GATEWAY, *DEVICES, BROKER)
#: A party is killed, frozen, hung up on; all are killed at once; a device's worker is killed, as by
#: a kernel without memory; the disk is full; somebody repeats what was said long ago.
KILL, FREEZE, CUT, POWER, OOM, FULL, ECHO = (
    *("kill", "freeze", "cut", "power", "oom", "full", "echo"),
)
#: How often each is drawn, compared to the others.
_WEIGHTS = {KILL: 8, FREEZE: 5, CUT: 2, POWER: 1, OOM: 2, FULL: 1, ECHO: 1} | dict.fromkeys(
    WEATHERS, 1
)
#: Pipelines of the configuration that must end well.
HONEST = ("edges", "twice", "soft", "levels", "flaky", "stutter")
#: Those that must fail on a marked picture, each with what its error must say.
PLANTED = {
    "raises": "ValueError: planted",
    "crash": "the worker process was ended by signal",
    "eat": "MemoryError",
    "hang": "did not return within its lease",
}
#: A file that is none, and a pipeline that nobody configured.
BROKEN_FILE, NO_PIPELINE = "broken-file", "no-pipeline"
REASONS = PLANTED | {BROKEN_FILE: "truncated", NO_PIPELINE: "no pipeline"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something bad that happens `at` seconds after the start and `lasts` so long."""

    at: float
    kind: str
    party: str
    lasts: float

    @property
    def until(self) -> float:
        return self.at + self.lasts


@dataclass(frozen=True, slots=True)
class Job:
    """An image that a customer submits; `planted` says why it must fail, if it must."""

    at: float
    reply: str
    pipeline: str
    height: int
    width: int
    seed: int
    planted: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """All of it, in order of time."""

    seed: int
    #: Whether the broker keeps what it knows on disk.
    persistence: bool
    #: Of gateway and devices: 5 or 3.1.1; binary or base64.
    protocol: str
    encoding: str
    #: Whether the gateway helps out where no device is there: auto or never.
    local: str
    faults: tuple[Fault, ...]
    jobs: tuple[Job, ...]


def drawn(seed: int, *, faults: int = 24, jobs: int = 24, length_s: float = 30.0) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(seed)
    return Schedule(
        seed=seed,
        persistence=rng.random() < 0.5,
        protocol="5" if rng.random() < 0.75 else "3.1.1",
        encoding="binary" if rng.random() < 0.75 else "base64",
        local="auto" if seed % 2 else "never",
        faults=tuple(sorted(_faults(rng, faults, length_s), key=lambda fault: fault.at)),
        jobs=tuple(_jobs(rng, seed, jobs, length_s)),
    )


def _faults(rng: random.Random, count: int, length_s: float) -> Iterator[Fault]:
    kinds = list(_WEIGHTS)
    for _ in range(count):
        kind = rng.choices(kinds, list(_WEIGHTS.values()))[0]
        lasts = round(min(rng.expovariate(1 / 1.5) + 0.2, 8.0), 2)
        yield Fault(round(rng.uniform(0.5, length_s), 2), kind, _party(rng, kind), lasts)


def _party(rng: random.Random, kind: str) -> str:
    if kind in (KILL, FREEZE):
        return rng.choice(PARTIES)
    if kind in (OOM, CORRUPT):
        # What travels between customer and gateway carries no digest of ours.
        return rng.choice(DEVICES)
    if kind in (POWER, FULL, ECHO):
        return {POWER: "all", FULL: "disk", ECHO: "anybody"}[kind]
    return rng.choice((GATEWAY, *DEVICES))


def _jobs(rng: random.Random, seed: int, count: int, length_s: float) -> Iterator[Job]:
    for number in range(count):
        at = round(number * length_s / count, 2)
        reply = f"c{seed}-{number}"
        height, width = rng.randrange(120, 600), rng.randrange(160, 800)
        planted = rng.choice((*REASONS, "raises")) if rng.random() < 0.25 else ""
        honest = rng.choice(HONEST)
        pipeline = {"": honest, BROKEN_FILE: "edges", NO_PIPELINE: "edgs"}.get(planted, planted)
        yield Job(at, reply, pipeline, height, width, rng.randrange(1 << 30), planted)
