"""Spot checks: a second device does a tile once more, and both results must agree.

A check tile is dormant until its tile has a result. Then it waits for a device other than the one
that gave the result, behind the ordinary tiles of its job. A device that could not answer it
(failed, expired, rejected) does not get it again. A check never delays the end of a job: the
scheduler gives it up when | |- as many devices could not answer it as may fail a tile, or devices
died of it or of its tile; |- all ordinary tiles are done and no ready device may have it.

Only the digest of a check tile's result matters. The pixels are dropped as "check result" or, if
they come too late, as "not wanted". If the digests differ, the gateway recomputes the tile
(`Arbitrate`), and its digest is right for as long as the job runs. A device that gave another
result is refuted: it is quarantined, and its results are dropped as "refuted" in all running jobs.
In the job where it was found out, its kept results are revoked, and their tiles and check tiles
done again.
"""

from __future__ import annotations

from fogmqtt.core.scheduling import failure_policy
from fogmqtt.core.scheduling.actions import Arbitrate, RevokeResult
from fogmqtt.core.scheduling.events import TileArbitrated
from fogmqtt.core.scheduling.leases import LeaseTable
from fogmqtt.core.scheduling.state import ActiveJob, Lease, SpotCheck, SpotCheckState, TileState


def is_wanted(lease: Lease) -> bool:
    """Whether a result for this lease of a check tile, late or not, would decide the check."""
    check_tile = lease.tile
    check, first = check_tile.check, check_tile.check.tile.kept if check_tile.check else None
    if check is None or first is None or check.state is not SpotCheckState.OPEN:
        return False
    return first.device != lease.device


def compare(table: LeaseTable, lease: Lease) -> None:
    """Compare a check result with the kept one. If they differ, the gateway must arbitrate."""
    check, job = lease.tile.check, lease.tile.job
    if check is None or check.tile.kept is None:
        return
    first = check.tile.kept
    table.release(lease)
    table.withdraw(check.check_tile)
    check.check_tile.kept = lease
    if lease.digest == first.digest:
        check.decide(SpotCheckState.AGREED)
        table.finish_if_done(job)
        return
    check.decide(SpotCheckState.DISPUTED)
    table.log(first, f"and {lease.device} differ")
    table.emit(Arbitrate(job.id, check.tile.index))


def is_refuted(lease: Lease) -> bool:
    """Whether the gateway itself got another result for this tile."""
    check = lease.tile.check
    return (
        check is not None
        and check.correct_digest is not None
        and check.correct_digest != lease.digest
    )


def arbitrate(table: LeaseTable, check: SpotCheck, event: TileArbitrated) -> None:
    """Apply the gateway's own result, or its failure."""
    job = check.tile.job
    check.correct_digest = event.digest
    if event.digest is None:
        check.decide(SpotCheckState.GIVEN_UP)
        job.event_log.add(table.now, f"nobody could tell who is right about {check.tile}")
    else:
        check.decide(SpotCheckState.AGREED)
        kept = [half.kept for half in (check.tile, check.check_tile) if half.kept is not None]
        for lease in kept:
            if is_refuted(lease):
                refute(table, lease.device, f"{check.tile} of {job.id}", job)
    table.finish_if_done(job)


def refute(table: LeaseTable, name: str, what: str, found_in: ActiveJob | None) -> None:
    """Distrust a device, and revoke its results in the job where it was found out."""
    why = f"a wrong result: {what}"
    for job in table.jobs.values():
        job.refuted |= {name}
    if found_in is not None:
        _revoke_results_of(table, found_in, name)
    device = table.fleet.get(name)
    if device is None:
        return
    table.quarantine(device, table.policy.refuted_s, why)
    for lease in list(device.leases.values()):
        if lease.live:  # its job may have ended over an earlier one
            table.revoke(lease)
            table.requeue(lease.tile)


def _revoke_results_of(table: LeaseTable, job: ActiveJob, name: str) -> None:
    """Let everything that this device did for a job be done again."""
    mine = [tile for tile in job.tiles if tile.kept is not None and tile.kept.device == name]
    for tile in mine:
        if not tile.is_check_tile:
            _revoke_result(table, tile)
    for check_tile in mine:
        if check_tile.is_check_tile and check_tile.check is not None:
            _reopen(table, check_tile.check)
    for tile in mine:
        if not tile.done:
            table.requeue(tile)


def _revoke_result(table: LeaseTable, tile: TileState) -> None:
    lease, job = tile.kept, tile.job
    if lease is None:
        return
    job.uncredit(lease)
    table.fleet.readiness_changed = True  # whether somebody can do it is a question again
    table.emit(RevokeResult(job.id, tile.index, lease.attempt, lease.device))
    table.log(lease, "is not believed")
    if tile.check is not None:
        _reopen(table, tile.check)


def _reopen(table: LeaseTable, check: SpotCheck) -> None:
    """Ask a second device anew, unless the right result is known or about to be."""
    known = check.correct_digest is not None or check.state is SpotCheckState.DISPUTED
    if known or check.state is SpotCheckState.GIVEN_UP:
        return
    check.check_tile.kept = None
    check.decide(SpotCheckState.OPEN)
    table.withdraw(check.check_tile)
    table.requeue(check.check_tile)


def drop_hopeless_checks(table: LeaseTable) -> None:
    """Give up checks that are hopeless or would delay the end of their job."""
    for job in [one for one in table.jobs.values() if one.checks]:
        for check_tile in list(job.check_tiles):
            if check_tile.check is not None and _is_hopeless(table, check_tile.check):
                job.dequeue(check_tile)
                check_tile.check.decide(SpotCheckState.GIVEN_UP)
                job.event_log.add(table.now, f"no second device for {check_tile.check.tile}")
        table.finish_if_done(job)


def _is_hopeless(table: LeaseTable, check: SpotCheck) -> bool:
    check_tile, policy = check.check_tile, table.policy
    if len(check_tile.excluded) >= policy.max_failures:
        return True
    if failure_policy.is_suspect(check_tile, policy) or failure_policy.is_suspect(
        check.tile, policy
    ):
        return True
    if check_tile.job.remaining > 0:
        return False
    return all(one.id in check_tile.excluded_devices for one in table.fleet.able(check_tile.job))
