"""What became of each submission, judged by all that is known of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.schedule import FULL, REASONS, Job, Schedule

EXACT, PLANTED, REFUSED, WRONG = "exact", "failed as planted", "refused as planted", "WRONG"
_DISK_FULL = "the gateway's disk is full"
_FINAL = ("done", "failed")


@dataclass(frozen=True)
class Evidence:
    """Of one submission."""

    job: Job
    #: How often it was published.
    published: int
    #: (job's id, state, error), as the customer heard it.
    said: Sequence[tuple[str, str, str]]
    #: (whether it ended, error) by job's id, as the gateway's books say.
    booked: Mapping[str, tuple[bool, str]]
    #: Whether each image that the customer got is exact.
    images: Sequence[bool]
    #: The same of each file in the outbox, by job's id.
    files: Mapping[str, bool]
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    evidence: Evidence
    outcome: str
    problems: Sequence[str] = field(default_factory=tuple)


def judge(evidence: Evidence, schedule: Schedule) -> Verdict:
    """Exact, or failed for the reason that was planted; each accepted job ended once."""
    problems = tuple(_problems(evidence, schedule))
    if problems:
        return Verdict(evidence, WRONG, problems)
    ends = _ends(evidence)
    if any(state == "done" for state, _ in ends.values()):
        return Verdict(evidence, EXACT)
    return Verdict(evidence, PLANTED if evidence.job.planted else REFUSED)


def is_over(evidence: Evidence) -> bool:
    """Whether nothing more is to be expected of it."""
    ends = _ends(evidence)
    return bool(ends) and all(job in ends for job in evidence.booked)


def _ends(evidence: Evidence) -> dict[str, tuple[str, str]]:
    """How each job ended: state and error; the books first, then what was heard."""
    heard = {job: (state, error) for job, state, error in evidence.said if state in _FINAL}
    booked = {
        job: ("failed" if error else "done", error)
        for job, (ended, error) in evidence.booked.items()
        if ended
    }
    return heard | booked


def _problems(evidence: Evidence, schedule: Schedule) -> Iterator[str]:
    ends = _ends(evidence)
    if not ends:
        yield f"never ended; published {evidence.published} times, heard {evidence.said[-3:]}"
    yield from _lost(evidence)
    yield from _ended_twice(evidence)
    for job, (state, error) in ends.items():
        yield from _unplanned(evidence, schedule, job, state, error)
    accepted = {job for job, state, _ in evidence.said if state == "accepted"}
    if len(accepted | set(evidence.booked)) > evidence.published:
        jobs = len(accepted | set(evidence.booked))
        yield f"{evidence.published} submissions became {jobs} jobs"


def _lost(evidence: Evidence) -> Iterator[str]:
    """What was accepted is in the books and ended, or its end was told.

    Without room on the disk, an end that was told is not written down.
    """
    ends = _ends(evidence)
    for job, (ended, _) in evidence.booked.items():
        if not ended and job not in ends:
            yield f"{job} is accepted and never ended"
    for job in {job for job, state, _ in evidence.said if state == "accepted"}:
        if job not in evidence.booked and job not in ends:
            yield f"{job} was accepted and is in no book"


def _ended_twice(evidence: Evidence) -> Iterator[str]:
    ends: dict[str, set[tuple[str, str]]] = {}
    for job, state, error in evidence.said:
        if state in _FINAL:
            ends.setdefault(job, set()).add((state, error))
    for job, (ended, error) in evidence.booked.items():
        if ended:
            ends.setdefault(job, set()).add(("failed" if error else "done", error))
    for job, found in ends.items():
        if len({state for state, _ in found}) > 1:
            yield f"{job} ended in two ways: {sorted(found)}"


def _unplanned(
    evidence: Evidence, schedule: Schedule, job: str, state: str, error: str
) -> Iterator[str]:
    planted = evidence.job.planted
    if state == "done":
        if planted:
            yield f"{job} is done, and was to fail: {planted}"
        yield from _inexact(evidence, job)
        return
    accepted = job in evidence.booked or (job, "accepted", "") in evidence.said
    can_be_full = any(fault.kind == FULL for fault in schedule.faults)
    # A disk may refuse an image; it fails none that was accepted.
    refused = _DISK_FULL in error and can_be_full and not accepted
    if not refused and (not planted or REASONS[planted] not in error):
        yield f"{job} failed with: {error[:1500]}"


def _inexact(evidence: Evidence, job: str) -> Iterator[str]:
    if not all(evidence.images):
        yield f"{job}: an image that came by MQTT is not OpenCV's"
    if job not in evidence.files:
        yield f"{job} is done, and no file is in the outbox"
    elif not evidence.files[job]:
        yield f"{job}: the file in the outbox is not OpenCV's"
