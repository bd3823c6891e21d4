"""What is written down of one job while it runs, and what an earlier life wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from fogmqtt.core.geometry import Rect, Tile
from fogmqtt.errors import FogError
from fogmqtt.gateway import pixels
from fogmqtt.gateway.clerk import Clerk
from fogmqtt.gateway.disk import Bytes
from fogmqtt.gateway.ledger import Begun, Halved, Kept, Revoked, new_token
from fogmqtt.gateway.past import Past, PastStage, PastTile
from fogmqtt.gateway.spool import Spool
from fogmqtt.gateway.tape import digest, tape_path
from fogmqtt.images.spec import Image

log = logging.getLogger(__name__)

_Box = tuple[int, int, Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]


class _Plan(msgspec.Struct, frozen=True, array_like=True):
    """A stage's tiles: each its core and what it is given, as top, left, height, width."""

    size: tuple[int, int]
    tiles: list[tuple[_Box, _Box]]


@dataclass(frozen=True, slots=True)
class Finished:
    """A tile that needs no work: its result as it travels."""

    tile: int
    device: str
    data: bytes


class Diary:
    """One job's. Reading belongs to the pool, writing to any one thread."""

    def __init__(self, spool: Spool, clerk: Clerk, job: str, past: Past) -> None:
        self._spool = spool
        self._clerk = clerk
        self._job = job
        self._past = past
        self._tokens: dict[int, str] = {}

    def pixels(self) -> Image | None:
        """The image that an earlier life decoded; None where that is sooner done again."""
        return pixels.read(self._spool.pixels(self._job))

    def keep_pixels(self, image: Image) -> None:
        """Spare the next life the decoding of a large image. The image must not be changed."""
        if pixels.is_worthwhile(image):
            self._clerk.order(lambda: self._keep_pixels(image))

    def _keep_pixels(self, image: Image) -> None:
        try:
            self._spool.keep_pixels(self._job, image)
        except (OSError, FogError) as problem:
            log.info("%s: its pixels are not kept: %s", self._job, problem)

    def tiles(self, position: int, kind: str) -> tuple[Tile, ...] | None:
        """How an earlier life cut this stage; None if it did not, or the stage is another now."""
        stage = self._past.stages.get(position)
        return _read_plan(stage) if stage is not None and stage.kind == kind else None

    def halved(self, position: int) -> tuple[tuple[int, int, int], ...]:
        """Which of those it halved: the index of a tile and those of its halves, in order."""
        return self._past.stages[position].halved

    def finished(self, position: int) -> Iterator[Finished]:
        """The stage's tiles that an earlier life finished; damaged ones are left out."""
        stage = self._past.stages[position]
        self._tokens[position] = stage.token
        path = tape_path(self._spool.folder, self._job, stage.token)
        if not stage.tiles or not path.exists():
            return
        with path.open("rb") as tape:
            for index, past in sorted(stage.tiles.items(), key=lambda item: item[1].start):
                tape.seek(past.start)
                data = tape.read(past.length)
                if _is_whole(stage, index, past, data):
                    yield Finished(index, past.device, data)
                else:
                    log.warning("%s: tile %d is damaged on disk, done again", path.name, index)

    def begin(self, position: int, kind: str, tiles: Sequence[Tile]) -> None:
        """A stage begins, cut like this; what an earlier life did of it is void."""
        token = self._tokens[position] = new_token()
        self._clerk.line(Begun(token, self._job, position, kind, _write_plan(tiles)))

    def keep(self, position: int, tile: int, device: str, data: Bytes) -> None:
        """A tile's result counts."""
        self._clerk.line(Kept(self._job, self._tokens[position], tile, device, data))

    def split(self, position: int, tile: int, first: int, second: int) -> None:
        """Two halves stand for a tile."""
        self._clerk.line(Halved(self._tokens[position], tile, first, second))

    def revoke(self, position: int, tile: int) -> None:
        """It does not count any more."""
        self._clerk.line(Revoked(self._tokens[position], tile))


def _is_whole(stage: PastStage, index: int, past: PastTile, data: bytes) -> bool:
    return len(data) == past.length and digest(stage.token, index, data) == past.digest


def _write_plan(tiles: Sequence[Tile]) -> bytes:
    boxes = [(_box(tile.core), _box(tile.outer)) for tile in tiles]
    return msgspec.msgpack.encode(_Plan(tiles[0].size, boxes))


def _read_plan(stage: PastStage) -> tuple[Tile, ...] | None:
    try:
        plan = msgspec.msgpack.decode(stage.plan, type=_Plan)
    except msgspec.MsgspecError as problem:
        log.warning("a stage's plan cannot be read (%s): cut anew", problem)
        return None
    return tuple(
        Tile(index, Rect(*core), Rect(*outer), plan.size)
        for index, (core, outer) in enumerate(plan.tiles)
    )


def _box(rect: Rect) -> _Box:
    return rect.top, rect.left, rect.height, rect.width
