"""What is said where a one-off run waited long enough."""

from __future__ import annotations

from collections.abc import Sequence

from fogmqtt.errors import NoBroker
from fogmqtt.gateway.conductor import Conductor


def unanswered(url: str, refusal: str, patience_s: float) -> NoBroker:
    """The error for a broker that did not take us in time."""
    reason = refusal or f"no broker answered at {url}"
    return NoBroker(
        f"{reason} (tried for {patience_s:g} s; `mosquitto -c broker/mosquitto.conf` starts "
        "one, and for this machine so does broker.embedded: auto)"
    )


def time_out(conductor: Conductor, timeout_s: float, present: Sequence[str]) -> None:
    """Fail the jobs that are left; `present` are the devices online."""
    online = ", ".join(present) or "none"
    for job in conductor.jobs():
        report = job.report
        conductor.fail(
            job,
            f"{report.name}: not done after {timeout_s:g} s (--timeout): "
            f"{report.done} of {report.tiles} tiles; devices online: {online}",
        )
