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

from fogmqtt.core import verdict
from fogmqtt.core.actions import Arbitrate, RevokeResult
from fogmqtt.core.books import Books
from fogmqtt.core.events import TileArbitrated
from fogmqtt.core.ledger import Check, CheckState, Job, Lease, Tile


def is_wanted(lease: Lease) -> bool:
    """Whether a result for this lease of a twin, late or not, would be a second opinion."""
    twin = lease.tile
    check, first = twin.check, twin.check.tile.kept if twin.check else None
    if check is None or first is None or check.state is not CheckState.OPEN:
        return False
    return first.device != lease.device


def compare(books: Books, lease: Lease) -> None:
    """A wanted second opinion is there: it agrees, or the gateway must tell who is right."""
    check, job = lease.tile.check, lease.tile.job
    if check is None or check.tile.kept is None:
        return
    first = check.tile.kept
    books.release(lease)
    books.withdraw(check.twin)
    check.twin.kept = lease
    if lease.digest == first.digest:
        job.decide(check, CheckState.AGREED)
        books.settle(job)
        return
    job.decide(check, CheckState.DISPUTED)
    books.tell(first, f"and {lease.device} differ")
    books.act(Arbitrate(job.id, check.tile.index))


def is_refuted(lease: Lease) -> bool:
    """Whether the gateway itself had another result for this tile."""
    check = lease.tile.check
    return check is not None and check.truth is not None and check.truth != lease.digest


def arbitrate(books: Books, check: Check, event: TileArbitrated) -> None:
    """The gateway has told, or could not."""
    job = check.tile.job
    check.truth = event.digest
    if event.digest is None:
        job.decide(check, CheckState.GIVEN_UP)
        job.story.tell(books.now, f"nobody could tell who is right about {check.tile}")
    else:
        job.decide(check, CheckState.AGREED)
        kept = [half.kept for half in (check.tile, check.twin) if half.kept is not None]
        for lease in kept:
            if is_refuted(lease):
                disprove(books, lease.device, f"{check.tile} of {job.id}", job)
    books.settle(job)


def disprove(books: Books, name: str, what: str, caught_in: Job | None) -> None:
    """Believe nothing more of this device, nor what it said in the job where it was caught."""
    why = f"a wrong result: {what}"
    for job in books.jobs.values():
        job.disproved |= {name}
    if caught_in is not None:
        _take_out(books, caught_in, name)
    device = books.fleet.get(name)
    if device is None:
        return
    books.quarantine(device, books.policy.disproved_s, why)
    for lease in list(device.leases.values()):
        if lease.live:  # its job may have ended over an earlier one
            books.revoke(lease)
            books.again(lease.tile)


def _take_out(books: Books, job: Job, name: str) -> None:
    """Let everything that this device did for a job be done again."""
    mine = [tile for tile in job.tiles if tile.kept is not None and tile.kept.device == name]
    for tile in mine:
        if not tile.is_twin:
            _redo(books, tile)
    for twin in mine:
        if twin.is_twin and twin.check is not None:
            _reopen(books, twin.check)
    for tile in mine:
        if not tile.done:
            books.again(tile)


def _redo(books: Books, tile: Tile) -> None:
    lease, job = tile.kept, tile.job
    if lease is None:
        return
    job.uncredit(lease)
    books.fleet.shifted = True  # whether somebody can do it is a question again
    books.act(RevokeResult(job.id, tile.index, lease.attempt, lease.device))
    books.tell(lease, "is not believed")
    if tile.check is not None:
        _reopen(books, tile.check)


def _reopen(books: Books, check: Check) -> None:
    """One half counts no more: unless the truth is known or about to be, ask anew."""
    known = check.truth is not None or check.state is CheckState.DISPUTED
    if known or check.state is CheckState.GIVEN_UP:
        return
    check.twin.kept = None
    check.tile.job.decide(check, CheckState.OPEN)
    books.withdraw(check.twin)
    books.again(check.twin)


def give_up(books: Books) -> None:
    """Ask nobody any more where that would hold up a job, or is hopeless."""
    for job in list(books.doubtful.values()):
        for twin in list(job.twins):
            if twin.check is not None and _is_hopeless(books, twin.check):
                job.dequeue(twin)
                job.decide(twin.check, CheckState.GIVEN_UP)
                job.story.tell(books.now, f"no second device for {twin.check.tile}")
        books.settle(job)


def _is_hopeless(books: Books, check: Check) -> bool:
    twin, policy = check.twin, books.policy
    if len(twin.shunned) >= policy.max_failures:
        return True
    if verdict.is_suspect(twin, policy) or verdict.is_suspect(check.tile, policy):
        return True
    if twin.job.remaining > 0:
        return False
    return all(one.id in twin.taboo for one in books.fleet.able(twin.job))
