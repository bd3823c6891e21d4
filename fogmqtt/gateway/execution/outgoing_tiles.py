"""Cuts and encodes tiles, and hands them on in the scheduler's order."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from fogmqtt.config import WireSettings
from fogmqtt.core.scheduling import actions as act
from fogmqtt.errors import FogError, NotConnected
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.links import DeviceLinks
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.active_stage import ActiveStage, TileCodecs
from fogmqtt.gateway.threads import Threads
from fogmqtt.transport.base import Payload
from fogmqtt.wire.messages import encode_in_pieces

log = logging.getLogger(__name__)


class EncodedTile(Struct, frozen=True):
    """A tile as it is published, and what its codec did."""

    payload: Payload
    codec: str
    pixel_bytes: int
    began_at: float
    cut_at: float
    encoded_at: float

    @property
    def seconds(self) -> float:
        """The time of cutting and encoding."""
        return self.encoded_at - self.began_at


class OutgoingTile(Struct, frozen=True):
    """A tile that is being encoded, or waits until the tiles before it are published."""

    stage: ActiveStage
    order: act.SendTile
    #: What a thread encodes, or the function that encodes a light tile when its turn comes.
    encoding: asyncio.Future[EncodedTile] | Callable[[], EncodedTile]


class OutgoingTiles:
    """The tiles on their way to the devices of one gateway. It belongs to the event loop.

    Threads encode several at a time. `publish` gets each device's tiles in the order of `add`. It
    may raise FogError: NotConnected ends nothing, since the scheduler hears of the lost link, and
    any other exception fails the stage.
    """

    def __init__(
        self,
        threads: Threads,
        background: BackgroundTasks,
        links: DeviceLinks,
        wire: WireSettings,
        gateway_id: str,
        publish: Callable[[OutgoingTile, EncodedTile], None],
    ) -> None:
        self._threads = threads
        self._background = background
        self._links = links
        self._wire = wire
        self._gateway_id = gateway_id
        self._publish = publish
        #: By device.
        self._waiting: dict[str, deque[OutgoingTile]] = {}

    def add(self, stage: ActiveStage, order: act.SendTile) -> None:
        """Publish a tile after those that were added for its device before."""
        codecs = stage.codecs(self._wire.codec, self._links, order.device)
        encode = partial(self._encode, stage, order, codecs)
        is_light = codecs.tile == "raw" and stage.run.is_light(stage.run.tile(order.tile))
        tile = OutgoingTile(stage, order, encode if is_light else self._threads.begin_tile(encode))
        waiting = self._waiting.get(order.device)
        if waiting is not None:
            waiting.append(tile)
            return
        self._waiting[order.device] = deque([tile])
        self._background.start(self._hand_on(order.device), f"tiles for {order.device}")

    async def _hand_on(self, device: str) -> None:
        waiting = self._waiting[device]
        try:
            while waiting:
                await self._hand_on_one(waiting.popleft())
        finally:
            del self._waiting[device]

    async def _hand_on_one(self, tile: OutgoingTile) -> None:
        try:
            self._publish(tile, await self._encoded(tile))
        except NotConnected:
            return  # Disconnected follows, and ends all leases
        except FogError as problem:
            tile.stage.fail(problem)
        except Exception as problem:
            log.exception("tile %s/%d cannot be sent", tile.order.job, tile.order.tile)
            tile.stage.fail(f"{type(problem).__name__}: {problem}")

    async def _encoded(self, tile: OutgoingTile) -> EncodedTile:
        """Wait for the encoding, and let the stage learn from it."""
        order, stage = tile.order, tile.stage
        if isinstance(tile.encoding, asyncio.Future):
            encoded = await tile.encoding
        else:
            encoded = await self._threads.tile(tile.encoding, light=True)
        if encoded.codec != "raw":
            sent = stage.run.stage.sent
            raw_bytes = stage.run.tile(order.tile).outer.pixels * sent.pixel_bytes
            stage.png.learn(raw_bytes, encoded.pixel_bytes, encoded.seconds)
        attempt = order.tile, order.attempt, order.device
        stage.trace.encoded(attempt, encoded.began_at, encoded.cut_at, encoded.encoded_at)
        return encoded

    def _encode(self, stage: ActiveStage, order: act.SendTile, codecs: TileCodecs) -> EncodedTile:
        """Cut and encode a tile; runs in a thread unless the tile is light."""
        run, tile, began_at = stage.run, stage.run.tile(order.tile), now()
        pixels = stage_run.cut_tile(run, tile)
        cut_at = now()
        task = stage_run.make_task(
            run,
            tile,
            pixels=pixels,
            attempt=order.attempt,
            gateway=self._gateway_id,
            lease_s=order.lease_s,
            wire_codec=codecs.tile,
            result_codec=codecs.result,
            budget_s=_budget_s(stage.deadline),
            priority=stage.job.request.priority,
            traceparent=stage.job.request.traceparent,
            tracestate=stage.job.request.tracestate,
        )
        payload = encode_in_pieces(task, self._wire.encoding)
        return EncodedTile(payload, codecs.tile, len(task.pixels), began_at, cut_at, now())


def _budget_s(deadline: float) -> float:
    """Return the seconds until a deadline, as in a message; 0 if there is none."""
    return max(1e-6, deadline - now()) if deadline < math.inf else 0.0
