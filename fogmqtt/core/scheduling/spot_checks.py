"""Second opinions: a tile is done once more by another device, and both must agree.

A twin sleeps until its tile has a result. Then it waits for a device other than the one whose
result that is, after the ordinary tiles of its job. Who could not answer it (failed, expired,
handed it back) is not asked again. It never holds a job up: it is given up
 - when so many devices could not answer it as may fail a tile, or when devices died of it or of
   its tile: then it may kill the next one too;
 - when all ordinary tiles are done and no device that is ready may have it.

Of a twin's result only the digest counts: the pixels are dropped, as "second opinion" or, where
it came too late to matter, as "not wanted". Where the digest differs, the gateway does the tile
itself (`Arbitrate`) and its digest is the truth for as long as the job runs. Who gave another
result is disproved: quarantined by name, and no result of it counts any more in any running job
(dropped as "disproved"). In the job where it was caught, those that had counted are revoked, and
their tiles and twins done again.
"""

from __future__ import annotations

from fogmqtt.core.scheduling import failure_policy
from fogmqtt.core.scheduling.actions import Arbitrate, RevokeResult
from fogmqtt.core.scheduling.events import TileArbitrated
from fogmqtt.core.scheduling.leases import LeaseTable
from fogmqtt.core.scheduling.state import ActiveJob, Lease, SpotCheck, SpotCheckState, TileState


def is_wanted(lease: Lease) -> bool:
    """Whether a result for this lease of a twin, late or not, would be a second opinion."""
    check_tile = lease.tile
    check, first = check_tile.check, check_tile.check.tile.kept if check_tile.check else None
    if check is None or first is None or check.state is not SpotCheckState.OPEN:
        return False
    return first.device != lease.device


def compare(table: LeaseTable, lease: Lease) -> None:
    """A wanted second opinion is there: it agrees, or the gateway must tell who is right."""
    check, job = lease.tile.check, lease.tile.job
    if check is None or check.tile.kept is None:
        return
    first = check.tile.kept
    table.release(lease)
    table.withdraw(check.check_tile)
    check.check_tile.kept = lease
    if lease.digest == first.digest:
        job.decide(check, SpotCheckState.AGREED)
        table.finish_if_done(job)
        return
    job.decide(check, SpotCheckState.DISPUTED)
    table.log(first, f"and {lease.device} differ")
    table.emit(Arbitrate(job.id, check.tile.index))


def is_refuted(lease: Lease) -> bool:
    """Whether the gateway itself had another result for this tile."""
    check = lease.tile.check
    return (
        check is not None
        and check.correct_digest is not None
        and check.correct_digest != lease.digest
    )


def arbitrate(table: LeaseTable, check: SpotCheck, event: TileArbitrated) -> None:
    """The gateway has told, or could not."""
    job = check.tile.job
    check.correct_digest = event.digest
    if event.digest is None:
        job.decide(check, SpotCheckState.GIVEN_UP)
        job.event_log.add(table.now, f"nobody could tell who is right about {check.tile}")
    else:
        job.decide(check, SpotCheckState.AGREED)
        kept = [half.kept for half in (check.tile, check.check_tile) if half.kept is not None]
        for lease in kept:
            if is_refuted(lease):
                refute(table, lease.device, f"{check.tile} of {job.id}", job)
    table.finish_if_done(job)


def refute(table: LeaseTable, name: str, what: str, found_in: ActiveJob | None) -> None:
    """Believe nothing more of this device, nor what it said in the job where it was caught."""
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
    """One half counts no more: unless the truth is known or about to be, ask anew."""
    known = check.correct_digest is not None or check.state is SpotCheckState.DISPUTED
    if known or check.state is SpotCheckState.GIVEN_UP:
        return
    check.check_tile.kept = None
    check.tile.job.decide(check, SpotCheckState.OPEN)
    table.withdraw(check.check_tile)
    table.requeue(check.check_tile)


def drop_hopeless_checks(table: LeaseTable) -> None:
    """Ask nobody any more where that would hold up a job, or is hopeless."""
    for job in list(table.jobs_with_checks.values()):
        for check_tile in list(job.check_tiles):
            if check_tile.check is not None and _is_hopeless(table, check_tile.check):
                job.dequeue(check_tile)
                job.decide(check_tile.check, SpotCheckState.GIVEN_UP)
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
