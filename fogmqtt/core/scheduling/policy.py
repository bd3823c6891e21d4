"""The scheduler's numbers with their reasons, and small decisions that follow from them.

Users configure six of them (`scheduler:` in config.yaml); the others are constants. Tests and
simulations may choose other values.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits, time-outs and weights of the scheduler. Times are in seconds."""

    #: Tiles that wait at a device beyond those in its workers: few, so that a slow device delays
    #: little. Where the round trip is long there are more: see `Fleet.window`.
    ahead: int = 1
    #: No device holds more tiles: Mosquitto drops silently past 1 020 queued messages.
    max_window: int = 16

    #: The time to accept a tile, from sending it on.
    accept_s: float = 5.0
    #: Bytes of tiles on their way to devices: more would only wait in the gateway's memory while
    #: their leases run.
    max_bytes_in_flight: int = 256_000_000
    #: On a slow link they are fewer: what it takes in so many seconds, …
    seconds_in_flight: float = 4.0
    #: … but not fewer than two tiles or so.
    min_bytes_in_flight: int = 512_000
    #: The gateway takes back a tile that it could not send for so long.
    send_s: float = 60.0
    #: A doubtful device keeps a tile without accepting it for so long, if others have time for it.
    doubt_s: float = 0.25
    #: A lease that is overdue waits at most so long for the proof that the gateway's own link is
    #: not the reason. A dead link is noticed earlier.
    confirm_s: float = 30.0
    #: Such a proof counts for the copies of late tiles for so long.
    confirmed_s: float = 1.0
    #: The time to accept doubles at each silence, for slow links, up to this.
    accept_max_s: float = 60.0
    #: A lease is this multiple of the expected time.
    lease_factor: float = 3.0
    #: A shorter lease would end at a hiccup of the network.
    min_lease_s: float = 2.0
    #: A longer one would hide a hung worker for longer than anybody waits.
    max_lease_s: float = 600.0
    #: The lease while nothing is known of this device and this kind of work.
    first_lease_s: float = 30.0

    #: The weight of the newest measurement: a tenfold change is followed within a few tiles.
    smoothing: float = 0.5

    #: A tile takes at most this part of the time until its job should end: later tiles can be
    #: smaller, so that all devices end together.
    share: float = 0.5
    #: Tiles of fewer seconds of work cost more in transit than they even out.
    least_s: float = 0.03
    #: The size of the first tiles of an unmeasured device.
    probe_pixels: int = 65_536
    #: A tile that ends later than its job by less than this part is no straggler.
    slack: float = 0.05

    #: Whether late tiles get second copies.
    hedging: bool = True
    #: A smaller delay is jitter.
    hedge_min_s: float = 0.2
    #: A copy is worth it if the original needs this multiple of the copy's time, and by so many
    #: seconds more.
    hedge_gain: float = 1.2
    hedge_gain_s: float = 0.05

    #: A tile with so many failures, on two devices if there are two, fails its job.
    max_failures: int = 4
    #: A tile that so many devices died of fails its job: it may be what kills them.
    max_losses: int = 3
    #: After this part of them the tile is sent only to a device that holds nothing else, so that it
    #: endangers no other tile. A user who raises `max_losses` says that devices die at random: then
    #: two deaths are a coincidence, and a device kept free for the tile is wasted.
    alone_after: float = 0.5
    #: A tile that was accepted and never answered so often hangs every device.
    max_expiries: int = 8
    #: A failed tile waits this long, then twice as long…
    retry_s: float = 0.2
    #: …up to this.
    retry_max_s: float = 5.0
    #: A device that rejects a tile is full or stopping: it gets none for this long, and twice as
    #: long at each further rejection, up to `retry_max_s`.
    return_pause_s: float = 0.2

    #: So many faults in a row, without a result, put a device into quarantine.
    quarantine_after: int = 3
    #: The first quarantine; each further one is twice as long…
    quarantine_s: float = 10.0
    #: …up to this: a repaired device is back within five minutes.
    quarantine_max_s: float = 300.0
    #: The quarantine after a wrong result. Most tiles are never checked, so a good result proves
    #: nothing, and a person should look at the device.
    refuted_s: float = 3600.0

    #: A job without any able device for this long is reported as starved.
    starve_s: float = 5.0

    def accept_after(self, silences: int) -> float:
        """The time to accept a tile after so many silences in a row."""
        return _doubled(self.accept_s, silences, self.accept_max_s)

    def lease(self, expected_s: float) -> float:
        """The lease for work of the expected time."""
        return max(self.min_lease_s, min(self.lease_factor * expected_s, self.max_lease_s))

    def retry_after(self, failures: int) -> float:
        """The back-off after the n-th failure."""
        return _doubled(self.retry_s, failures - 1, self.retry_max_s)

    def pause_after(self, returns: int) -> float:
        """The pause of a device after its n-th rejection in a row."""
        return _doubled(self.return_pause_s, returns - 1, self.retry_max_s)

    def quarantine_for(self, before: int) -> float:
        """The length of a quarantine after `before` others without a result in between."""
        return _doubled(self.quarantine_s, before, self.quarantine_max_s)

    def blend(self, old: float | None, new: float) -> float:
        """The exponentially weighted mean, with a newer measurement."""
        return new if old is None else old + self.smoothing * (new - old)


def _doubled(first: float, times: int, limit: float) -> float:
    # The exponent is bounded because 2.0**1024 is an OverflowError.
    return float(max(first, min(first * 2 ** min(times, 32), limit)))
