"""What is published while somebody watches: the changes of devices, jobs and tiles.

Nothing is computed without a watcher. With one, changes are gathered five times a second at most,
and less often if that takes long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from fogmqtt.errors import NotConnected, TooLarge
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.jobs.model import JobHandle
from fogmqtt.gateway.jobs.trace_values import TileNow, TilesNow
from fogmqtt.gateway.service.device_cards import Work, device_cards
from fogmqtt.gateway.service.history import History
from fogmqtt.gateway.service.jobs import Jobs
from fogmqtt.wire.messages import encode
from fogmqtt.wire.service_messages import (
    TILE_STATUSES,
    WATCH_LASTS_S,
    Area,
    DeviceCard,
    GatewayCard,
    JobCard,
    Snapshot,
    TileRow,
    TilesUpdate,
    Update,
)

#: Seconds between two updates, at least, and this many times what an update takes. A fifth of a
#: second is soon enough for eyes, and half as dear as the ten updates a second that are allowed. An
#: update may wait long for the history's thread, so there is a limit: people wait for updates.
EVERY_S: Final = 0.2
_REST: Final = 30
LONGEST_S: Final = 0.5
#: The same when a job ends: somebody may wait for its result.
SOON_S: Final = 0.1
#: Seconds between two looks at the devices and at the gateway.
CARDS_S: Final = 1.0
#: Jobs in a snapshot, and tiles in one message: it must fit into a packet.
MAX_JOBS: Final = 100
MAX_ROWS: Final = 2500
#: Watchers that are known; names come from the network.
_MAX_WATCHERS: Final = 256

_STATUS: Final = {name: index for index, name in enumerate(TILE_STATUSES)}


@dataclass(slots=True)
class _Tiles:
    """What was published of the tiles of a job's present stage."""

    #: The number of the stage or plan, and the version of the trace that was looked at.
    number: int
    seen: int = -1
    #: The number of the last update.
    version: int = 0
    devices: list[str] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    #: What changed and was not published, since it did not fit into a message.
    pending: dict[int, TileNow] = field(default_factory=dict)

    def update(self, job: str, tiles: TilesNow, most: int) -> TilesUpdate | None:
        """Return what changed, with at most so many tiles; None if nothing did."""
        self.seen = tiles.version
        # The newest come first. A check tile has the same core as the tile that it checks.
        self.pending.update((one.index, one) for one in reversed(tiles.tiles) if not one.is_check)
        if not self.pending or most <= 0:
            return None
        chosen = [self.pending.pop(index) for index in list(self.pending)[:most]]
        cores: dict[int, Area] = {
            one.index: (one.core.top, one.core.left, one.core.height, one.core.width)
            for one in chosen
            if one.index not in self.known
        }
        self.known.update(cores)
        self.version += 1
        height, width = tiles.size
        return TilesUpdate(
            job=job,
            version=self.version,
            stage=self.number,
            height=height,
            width=width,
            devices=self.devices,
            cores=cores,
            rows=[self._row(one) for one in chosen],
        )

    def _row(self, tile: TileNow) -> TileRow:
        return TileRow(tile.index, _STATUS[tile.status], self._device(tile.device), tile.attempt)

    def _device(self, device: str) -> int:
        if not device:
            return -1
        if device not in self.devices:
            self.devices.append(device)
        return self.devices.index(device)


class Watchers:
    """The watchers, and what they are told. It belongs to the event loop."""

    def __init__(
        self,
        gateway: Gateway,
        jobs: Jobs,
        describe: Callable[[], GatewayCard],
        why_left: dict[str, str],
    ) -> None:
        self._gateway = gateway
        self._jobs = jobs
        self._describe = describe
        self._why_left = why_left
        #: Until when each client watches.
        self._until: dict[str, float] = {}
        self._woken = asyncio.Event()
        self._sequence = 0
        self._cards_at = float("-inf")
        self._gateway_card: GatewayCard | None = None
        self._devices: dict[str, DeviceCard] = {}
        self._cards: dict[str, JobCard] = {}
        self._tiles: dict[str, _Tiles] = {}

    @property
    def active(self) -> bool:
        """Whether somebody watches."""
        moment = now()
        self._until = {client: at for client, at in self._until.items() if at > moment}
        return bool(self._until)

    async def renew(self, client: str, request_id: str) -> Snapshot:
        """Publish updates for this client for a while, and return all that is shown now."""
        was_active = self.active
        if client in self._until or len(self._until) < _MAX_WATCHERS:
            self._until[client] = now() + WATCH_LASTS_S
        if not was_active:
            self._forget()
        # What is published while the history is read is not in these cards.
        sequence = self._sequence
        cards = await self._jobs.newest(MAX_JOBS)
        snapshot = self._snapshot(request_id, sequence, cards)
        self._woken.set()
        return snapshot

    async def run(self) -> None:
        """Publish changes while somebody watches."""
        while True:
            self._woken.clear()
            while self.active:
                began_at = now()
                self._jobs.one_ended.clear()
                await self._publish_changes()
                taken_s = now() - began_at
                await self._rest(min(max(EVERY_S, _REST * taken_s), LONGEST_S))
            self._jobs.is_watched = False
            await self._woken.wait()

    async def _rest(self, rest_s: float) -> None:
        """Wait for the time of the next update, which comes sooner when a job ends."""
        await asyncio.sleep(SOON_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(rest_s - SOON_S):
                await self._jobs.one_ended.wait()

    def look_again(self) -> None:
        """Look at the devices with the next update, since one came or left."""
        self._cards_at = float("-inf")

    def _forget(self) -> None:
        """Nothing is known to any watcher."""
        self._gateway_card = None
        self._devices, self._cards, self._tiles = {}, {}, {}
        self._cards_at = float("-inf")
        self._jobs.changed.clear()
        self._jobs.gone.clear()
        self._jobs.is_watched = True

    def _snapshot(self, request_id: str, sequence: int, cards: list[JobCard]) -> Snapshot:
        tiles, room = [], MAX_ROWS
        for handle in self._listed():
            if (present := handle.trace.tiles()) is None:
                continue
            known = self._tiles.get(handle.id)
            record = _Tiles(present.number, version=known.version if known else 0)
            if (update := record.update(handle.id, present, room)) is not None:
                tiles.append(update)
                room -= len(update.rows)
            if known is None or record.pending:
                # The next updates say what is not in the snapshot; others hear it twice.
                self._tiles[handle.id] = record
        return Snapshot(
            id=request_id,
            boot=self._gateway.status.boot,
            sequence=sequence,
            at=round(time.time(), 3),
            gateway=self._describe(),
            devices=self.device_cards(),
            jobs=cards,
            tiles=tiles,
        )

    def device_cards(self) -> list[DeviceCard]:
        """Return a card for each device, as it does now."""
        return device_cards(self._gateway, self._work(), self._why_left)

    def _work(self) -> dict[str, Work]:
        """Return the stages under way by their keys."""
        found = {}
        for handle in self._gateway.jobs():
            if (live := self._gateway.live_stage(handle.id)) is not None:
                found[live.key] = Work(handle.id, handle.request.name, live.needs)
        return found

    async def _publish_changes(self) -> None:
        gone = sorted(self._jobs.gone)
        self._jobs.gone.clear()
        gateway, devices, gone_devices = self._card_changes()
        jobs = await self._job_changes()
        tiles = self._tile_changes()
        if not (gateway or devices or gone_devices or jobs or gone or tiles):
            return
        self._sequence += 1
        update = Update(
            boot=self._gateway.status.boot,
            sequence=self._sequence,
            at=round(time.time(), 3),
            gateway=gateway,
            devices=devices,
            gone_devices=gone_devices,
            jobs=jobs,
            gone_jobs=gone,
            tiles=tiles,
        )
        topic = self._gateway.topics.gateway(self._gateway.id, "updates")
        try:
            self._gateway.link.publish(topic, encode(update), qos=0)
        except (NotConnected, TooLarge) as problem:
            # Watchers see the gap in the sequence, and ask for a snapshot.
            self._gateway.warn("updates", str(problem))

    def _card_changes(self) -> tuple[GatewayCard | None, list[DeviceCard], list[str]]:
        if now() - self._cards_at < CARDS_S:
            return None, [], []
        self._cards_at = now()
        self._jobs.changed.update(handle.id for handle in self._gateway.jobs() if handle.started_at)
        gateway = self._describe()
        is_news, self._gateway_card = gateway != self._gateway_card, gateway
        cards = {card.id: card for card in self.device_cards()}
        changed = [card for card in cards.values() if self._devices.get(card.id) != card]
        gone = [device for device in self._devices if device not in cards]
        self._devices = cards
        return gateway if is_news else None, changed, gone

    async def _job_changes(self) -> list[JobCard]:
        """Return the cards that changed, so many that they fit into a message."""
        changed = list(self._jobs.changed)[:MAX_JOBS]
        self._jobs.changed.difference_update(changed)
        found, ended = [], []
        for job in changed:
            card = self._jobs.live_card(job)
            if card is None:
                self._cards.pop(job, None)
                card = self._jobs.just_ended(job)
                if card is None:
                    ended.append(job)
                    continue
            elif self._cards.get(job) == card:
                continue
            else:
                self._cards[job] = card
            found.append(card)
        if ended:
            found += await self._jobs.on_disk(lambda history: _cards_of(history, ended))
        return found

    def _tile_changes(self) -> list[TilesUpdate]:
        found, room = [], MAX_ROWS
        listed = self._listed()
        for job in self._tiles.keys() - {handle.id for handle in listed}:
            del self._tiles[job]
        for handle in listed:
            known = self._tiles.get(handle.id)
            tiles = handle.trace.tiles(-1 if known is None else known.seen)
            if tiles is None:
                continue
            if known is None or known.number != tiles.number:
                version = known.version if known else 0
                known = self._tiles[handle.id] = _Tiles(tiles.number, version=version)
            if (update := known.update(handle.id, tiles, room)) is not None:
                found.append(update)
                room -= len(update.rows)
        return found

    def _listed(self) -> list[JobHandle]:
        """Return the jobs under way that are in the list; trials are not."""
        return [one for one in self._gateway.jobs() if self._jobs.tracked(one.id) is not None]


def _cards_of(history: History, jobs: list[str]) -> list[JobCard]:
    return [found.card for job in jobs if (found := history.get(job)) is not None]
