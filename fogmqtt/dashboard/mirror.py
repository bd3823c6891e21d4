"""What the gateway last said: a snapshot, and the updates after it. Pure.

The number of an update follows that of the one before. Where one is missing, only a new snapshot
tells what is true.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from fogmqtt.wire.service_messages import (
    Area,
    DeviceCard,
    GatewayCard,
    JobCard,
    Snapshot,
    TileRow,
    TilesUpdate,
    Update,
)

#: The states in which a job stays.
ENDED = ("done", "failed", "cancelled")
#: What an update was: the next one, an older one, or one with others missing before it.
Fit = Literal["next", "old", "gap"]


@dataclass(slots=True)
class _Tiles:
    """All tiles of a stage. Rows name devices by their place in `devices`."""

    first: TilesUpdate
    devices: list[str] = field(default_factory=list)
    cores: dict[int, Area] = field(default_factory=dict)
    rows: dict[int, TileRow] = field(default_factory=dict)

    def add(self, update: TilesUpdate) -> None:
        for name in update.devices:
            if name not in self.devices:
                self.devices.append(name)
        places = [self.devices.index(name) for name in update.devices]
        self.first = update
        self.cores.update(update.cores)
        for row in update.rows:
            device = places[row.device] if 0 <= row.device < len(places) else -1
            self.rows[row.tile] = TileRow(row.tile, row.status, device, row.attempt)

    def whole(self) -> TilesUpdate:
        """Return all of it as one update."""
        return replace(
            self.first,
            devices=list(self.devices),
            cores=dict(self.cores),
            rows=list(self.rows.values()),
        )


class Mirror:
    """The gateway, its devices and jobs. Empty until the first snapshot."""

    def __init__(self) -> None:
        self.boot = ""
        self.sequence = -1
        self.at = 0.0
        self.gateway: GatewayCard | None = None
        self.devices: dict[str, DeviceCard] = {}
        self.jobs: dict[str, JobCard] = {}
        self._tiles: dict[str, _Tiles] = {}

    def fit(self, boot: str, sequence: int) -> Fit:
        """Return how an update with this number relates to what is known."""
        if boot == self.boot and sequence <= self.sequence:
            return "old"
        return "next" if boot == self.boot and sequence == self.sequence + 1 else "gap"

    def take(self, snapshot: Snapshot) -> None:
        """Forget everything, and know what the snapshot says."""
        self.boot, self.sequence, self.at = snapshot.boot, snapshot.sequence, snapshot.at
        self.gateway = snapshot.gateway
        self.devices = {card.id: card for card in snapshot.devices}
        self.jobs = {card.id: card for card in snapshot.jobs}
        self._tiles = {}
        for tiles in snapshot.tiles:
            self._add_tiles(tiles)

    def apply(self, update: Update) -> None:
        """Know what an update says that is the next one."""
        self.boot, self.sequence, self.at = update.boot, update.sequence, update.at
        self.gateway = update.gateway or self.gateway
        self.devices.update({card.id: card for card in update.devices})
        for device in update.gone_devices:
            self.devices.pop(device, None)
        for tiles in update.tiles:
            self._add_tiles(tiles)
        for card in update.jobs:
            self._set_job(card)
        for job in update.gone_jobs:
            self.jobs.pop(job, None)
            self._tiles.pop(job, None)

    def snapshot(self) -> Snapshot | None:
        """Return all that is known, the newest jobs first; None before the first snapshot."""
        if self.gateway is None:
            return None
        return Snapshot(
            id="",
            boot=self.boot,
            sequence=self.sequence,
            at=self.at,
            gateway=self.gateway,
            devices=list(self.devices.values()),
            jobs=sorted(self.jobs.values(), key=lambda card: -card.accepted_at),
            tiles=[tiles.whole() for tiles in self._tiles.values()],
        )

    def _set_job(self, card: JobCard) -> None:
        self.jobs[card.id] = card
        if card.state in ENDED:
            self._tiles.pop(card.id, None)

    def _add_tiles(self, update: TilesUpdate) -> None:
        known = self._tiles.get(update.job)
        if known is None or known.first.stage != update.stage:
            known = self._tiles[update.job] = _Tiles(update)
        known.add(update)


def merged(first: Update, second: Update) -> Update:
    """Return one update that says what two in a row say."""
    devices = {card.id: card for card in (*first.devices, *second.devices)}
    jobs = {card.id: card for card in (*first.jobs, *second.jobs)}
    back = {card.id for card in second.devices}
    gone_devices = {name for name in first.gone_devices if name not in back}
    gone_devices.update(second.gone_devices)
    gone_jobs = {*first.gone_jobs, *second.gone_jobs}
    tiles: dict[tuple[str, int], _Tiles] = {}
    for one in (*first.tiles, *second.tiles):
        tiles.setdefault((one.job, one.stage), _Tiles(one)).add(one)
    return Update(
        boot=second.boot,
        sequence=second.sequence,
        at=second.at,
        gateway=second.gateway or first.gateway,
        devices=[card for name, card in devices.items() if name not in gone_devices],
        gone_devices=sorted(gone_devices),
        jobs=[card for name, card in jobs.items() if name not in gone_jobs],
        gone_jobs=sorted(gone_jobs),
        tiles=[one.whole() for (job, _), one in tiles.items() if job not in gone_jobs],
    )
