"""The scheduler's numbers, each with its reason, and the small decisions that need nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from fogmqtt.errors import ConfigError

#: Fields where zero has a meaning: none of it, or at once.
_MAY_BE_ZERO = frozenset(
    {"ahead", "retry_s", "return_pause_s", "hedge_min_s", "hedge_gain_s", "starve_s"}
)


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient the scheduler is. Raises ConfigError for a figure that makes no sense."""

    #: Tiles that wait at a device beyond those in its workers' hands: few enough that a
    #: slow one holds nothing hostage. There are more where the way takes long: `core.windows`.
    ahead: int = 1
    #: No device holds more than this: Mosquitto drops silently past 1 020 queued messages.
    max_window: int = 16

    #: From sending a tile to the device's word that it has it: a PUBACK is no such promise.
    accept_s: float = 5.0
    #: Bytes of tiles on their way to devices: more would only wait in the gateway's memory while
    #: their leases run.
    max_bytes_in_flight: int = 256_000_000
    #: The gateway takes a tile back that it could not send for so long.
    send_s: float = 60.0
    #: The wait doubles at each silence, for slow links, and ends here.
    accept_max_s: float = 60.0
    #: A lease is so many times what the work should take.
    lease_factor: float = 4.0
    #: Shorter leases would take a hiccup of the network for a dead device.
    min_lease_s: float = 2.0
    #: Longer ones would hide a hung worker for longer than anybody waits.
    max_lease_s: float = 600.0
    #: Before anything is known of this device and this kind of work.
    first_lease_s: float = 30.0

    #: Weight of the newest measurement: a change of speed by ten is followed within a few tiles.
    smoothing: float = 0.5

    #: A device gets tiles of at most this part of what it can do until the job should end: what
    #: comes later can be smaller, so that all end together.
    share: float = 0.5
    #: Smaller tiles than this many seconds of work cost more on the way than they even out.
    least_s: float = 0.03
    #: Where nobody knows how fast a device is, its first tiles have about so many pixels.
    probe_pixels: int = 65_536
    #: A tile that would end later than all others by less than this part is no straggler.
    slack: float = 0.05

    #: A second copy goes out when a tile takes so many times what it should, or would take so
    #: many times what a copy takes.
    hedge_factor: float = 2.0
    #: Jitter is no straggler: nothing that is late by less than this is hedged.
    hedge_min_s: float = 0.2
    #: An idle device gets a copy where the original is expected to need so many times what the
    #: copy takes, and so many seconds more.
    hedge_gain: float = 1.2
    hedge_gain_s: float = 0.05

    #: A tile that failed so often, on two devices if there are two, fails its job.
    max_failures: int = 4
    #: A tile that so many devices died with in their hands fails its job: it may be what kills
    #: them.
    max_losses: int = 3
    #: After so many deaths a tile is only sent to a device that holds nothing else, so that it
    #: takes no other job's tiles with it.
    alone_after_losses: int = 2
    #: A tile that was accepted and never answered so often hangs whoever takes it.
    max_expiries: int = 8
    #: A failed tile waits this long, then twice as long…
    retry_s: float = 0.2
    #: …and never longer than this.
    retry_max_s: float = 5.0
    #: A device that hands a tile back gets none for so long, since it is full or about to stop;
    #: while it takes none at all the pause doubles, up to `retry_max_s`.
    return_pause_s: float = 0.2

    #: A run of so many failures, expiries, silences and deaths without a result.
    quarantine_after: int = 3
    #: The first quarantine; each further one is twice as long…
    quarantine_s: float = 10.0
    #: …up to this: a device that was repaired is back within five minutes.
    quarantine_max_s: float = 300.0
    #: A device that gave a wrong result: most of its tiles are never looked at, so one good result
    #: proves nothing, and somebody should see to it.
    refuted_s: float = 3600.0

    #: Without any able device for so long, a job is reported as starved.
    starve_s: float = 5.0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name))

    def accept_after(self, silences: int) -> float:
        """How long a device may take to accept, after so many silences in a row."""
        return _doubled(self.accept_s, silences, self.accept_max_s)

    def lease(self, expected_s: float) -> float:
        """How long a device may take for work that should take `expected_s`."""
        return max(self.min_lease_s, min(self.lease_factor * expected_s, self.max_lease_s))

    def retry_after(self, failures: int) -> float:
        """How long a tile waits after its n-th failure."""
        return _doubled(self.retry_s, failures - 1, self.retry_max_s)

    def pause_after(self, returns: int) -> float:
        """How long a device is left alone after handing back its n-th tile in a row."""
        return _doubled(self.return_pause_s, returns - 1, self.retry_max_s)

    def quarantine_for(self, before: int) -> float:
        """How long a quarantine is after `before` others without a result in between."""
        return _doubled(self.quarantine_s, before, self.quarantine_max_s)

    def blend(self, old: float | None, new: float) -> float:
        """The exponentially weighted mean, with a newer measurement."""
        return new if old is None else old + self.smoothing * (new - old)


def _doubled(first: float, times: int, limit: float) -> float:
    # The exponent is bounded because 2.0**1024 is an OverflowError.
    return float(max(first, min(first * 2 ** min(times, 32), limit)))


def _check(name: str, value: float) -> None:
    least = 0 if name in _MAY_BE_ZERO else 1 if isinstance(value, int) else math.ulp(0.0)
    if not math.isfinite(value) or value < least:
        bound = "at least 0" if name in _MAY_BE_ZERO else "more than 0"
        raise ConfigError(f"scheduler: {name}: expected a number of {bound}, got {value!r}")
    if name == "smoothing" and value > 1:
        raise ConfigError(f"scheduler: smoothing: expected a weight of at most 1, got {value!r}")
