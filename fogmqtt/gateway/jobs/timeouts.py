"""What is said where somebody waited long enough."""

from __future__ import annotations

from collections.abc import Sequence

from fogmqtt.errors import NoBroker
from fogmqtt.gateway.jobs.runner import JobRunner


def unanswered(url: str, refusal: str, patience_s: float) -> NoBroker:
    """The error for a broker that did not take us in time."""
    reason = refusal or f"no broker answered at {url}"
    return NoBroker(
        f"{reason} (tried for {patience_s:g} s; `mosquitto -c broker/mosquitto.conf` starts "
        "one, and for this machine so does broker.embedded: auto)"
    )


def time_out(conductor: JobRunner, timeout_s: float, present: Sequence[str]) -> None:
    """Fail the jobs that are left; `present` are the devices online."""
    online = ", ".join(present) or "none"
    for job in conductor.jobs():
        report = job.report
        conductor.fail(
            job,
            f"{report.name}: not done after {timeout_s:g} s (--timeout): "
            f"{report.done} of {report.tiles} tiles; devices online: {online}",
        )


def starving(waited_s: float, reason: str, *, never: bool) -> str:
    """The notice for a job that no device can do; `never` may its gateway step in."""
    way = "waiting, since gateway.local is never" if never else "this gateway does the rest itself"
    return f"no device for {waited_s:.0f} s: {reason}; {way}"
