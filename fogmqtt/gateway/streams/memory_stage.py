"""A stage whose operators remember earlier frames: each tile goes to the device with its memory.

`core.streaming.homes` decides. This module keeps the frames that a memory may still need, sends
what `Homes` says, in that order, and takes the answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
import numpy as np

from fogmqtt.config import StreamSettings
from fogmqtt.core.geometry import Tile
from fogmqtt.core.streaming.homes import EpochBegan, FrameFailed, HomeRules, Homes, Send
from fogmqtt.core.streaming.memory_store import Deed
from fogmqtt.errors import JobFailed, WireError
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import AbleDevice
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.execution.stage_run import StageRun, decode_result, make_task
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.source import ArrayImage
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import Operator, StageOutput
from fogmqtt.operators.api.memory import MemoryNeeds
from fogmqtt.operators.api.pipeline import Stage, run_gateway_operators
from fogmqtt.wire.messages import (
    MEMORY_CODEC,
    NO_PIXELS,
    Failure,
    FromDevice,
    Overdue,
    Rejected,
    Result,
    TileMemory,
    TileTask,
    check_digest,
    with_digest,
)

log = logging.getLogger(__name__)

#: The letter of a deed at the end of a task's name.
_LETTERS: Final[dict[Deed, str]] = {"apply": "a", "begin": "b", "load": "l", "save": "s"}
_DEEDS: Final = {letter: deed for deed, letter in _LETTERS.items()}
#: Seconds between two looks at the devices, and at what was not answered.
_LOOK_S: Final = 0.1
#: Seconds until a message or its answer counts as lost. A device may be slow.
_PATIENCE_S: Final = 10.0
#: Seconds after which a device ends a worker that does not return from a tile.
_LEASE_S: Final = 60.0
#: Bytes of frames that are kept so that a memory can come back, at most.
_KEPT_BYTES: Final = 256 << 20
_MOST_KEPT: Final = 64
#: A second frame is under way if the last one took less than this part of `max_age_s`: it may wait
#: for the first one.
_SHORT_SHARE: Final = 1 / 3


@dataclass(slots=True, eq=False)
class _Frame:
    run: StageRun
    #: The whole frame as it is sent, after the operators that the gateway does.
    sent: Image
    output: asyncio.Future[StageOutput]
    #: Tiles whose result is not pasted, and those whose result is there.
    left: int
    #: How many memories had been lost when its last tile was there.
    reseeds: int = 0
    pasted: set[int] = field(default_factory=set)


class MemoryStage:
    """One stage of a stream, for frames of one size. It belongs to the event loop."""

    def __init__(
        self,
        stage: Stage,
        tiles: tuple[Tile, ...],
        needs: MemoryNeeds,
        settings: StreamSettings,
        dispatcher: Dispatcher,
        threads: Threads,
        able: Callable[[], Mapping[str, AbleDevice]],
        changed: Callable[[], None],
    ) -> None:
        """`able` returns the devices that can do tiles of this stage now.

        `changed` is called when `has_room` may be another.
        """
        self._changed = changed
        self._able = able
        self._is_closed = False
        self._stage = stage
        self._tiles = tiles
        self._priority = settings.priority
        self._dispatcher = dispatcher
        self._threads = threads
        state, kept = settings.state, _KEPT_BYTES // max(1, stage.sent.nbytes)
        rules = HomeRules(
            window=needs.window,
            can_copy=needs.kind == "recursive",
            warmup=needs.warmup,
            reseed=state.reseed,
            standby=state.standby,
            snapshot_s=state.snapshot_s,
            kept_frames=max(4, min(_MOST_KEPT, kept)),
            patience_s=_PATIENCE_S,
            short_s=math.inf if settings.keep == "all" else _SHORT_SHARE * settings.max_age_s,
        )
        self._homes = Homes([one.core.pixels for one in tiles], rules)
        #: The tasks of this stage are named by it, and so is the memory at the devices.
        self._id = f"m{secrets.token_hex(6)}"
        self._frames: dict[int, _Frame] = {}
        self._seq = 0
        self._boots: dict[str, str] = {}
        self._outgoing: asyncio.Queue[tuple[Send, _Frame | None]] = asyncio.Queue()
        self._tasks = BackgroundTasks()
        #: Epochs that began because a memory was lost.
        self.reseeds = 0
        dispatcher.route(self._id, self._received)
        self._tasks.start(self._send_all(), "tiles with memory")
        self._tasks.start(self._watch(), "homes of tiles")

    @property
    def is_ready(self) -> bool:
        """Whether another frame can begin."""
        return self._homes.is_ready

    @property
    def has_room(self) -> bool:
        """Whether another frame would be done soon."""
        return self._homes.has_room

    @property
    def warming(self) -> int:
        """The tiles whose memory is too young for their results to mean much."""
        return len(self._homes.warming(self._seq))

    def look(self) -> None:
        """Take notice of the devices that came and went."""
        able, moment = self._able(), now()
        for device, one in able.items():
            if self._boots.setdefault(device, one.boot) != one.boot:
                self._boots[device] = one.boot
                self._homes.restart_device(device, moment)
        speeds = {name: one.workers * max(one.relative_speed, 1e-3) for name, one in able.items()}
        self._homes.set_devices(speeds, moment)
        self._act()

    async def prepare(self, image: Image, operators: tuple[Operator, ...]) -> _Frame:
        """Return a frame that can begin; `operators` are the stage's, prepared for it."""
        work = partial(_as_sent, self._stage, image)
        sent = await self._threads.image(work, image.shape[0] * image.shape[1])
        run = StageRun(
            self._id,
            self._stage,
            operators,
            ArrayImage(image),
            self._tiles,
            operators[-1].merger(self._stage.result),
        )
        return _Frame(run, sent, asyncio.get_running_loop().create_future(), len(self._tiles))

    def begin(self, frame: _Frame) -> int:
        """Begin a frame after those before it; returns its number. Raises JobFailed."""
        if self._is_closed:
            raise JobFailed("the stream began anew")
        self._seq += 1
        self._frames[self._seq] = frame
        self._homes.begin(self._seq, now())
        self._act()
        return self._seq

    async def result(self, seq: int, frame: _Frame) -> tuple[StageOutput, int]:
        """Wait for a frame's result; returns it, and how many memories were lost before.

        The memories learn from a frame that nobody waits for, too. Raises JobFailed.
        """
        try:
            return await frame.output, frame.reseeds
        finally:
            if frame.output.cancelled():
                self._homes.give_up(seq, now())
                self._act()

    async def close(self) -> None:
        """End the stage. The devices forget its memories after some time."""
        self._is_closed = True
        self._dispatcher.unroute(self._id)
        await self._tasks.close()
        for frame in self._frames.values():
            if not frame.output.done():
                frame.output.set_exception(JobFailed("the stream began anew, or has ended"))
                frame.output.exception()  # maybe nobody waits for it

    # --- what `Homes` says ------------------------------------------------------------------

    def _act(self) -> None:
        for action in self._homes.actions():
            match action:
                case Send():
                    needs_pixels = action.deed in ("apply", "begin")
                    frame = self._frames[action.seq] if needs_pixels else None
                    self._outgoing.put_nowait((action, frame))
                case FrameFailed(seq=seq, reason=reason):
                    self._fail(seq, reason)
                case EpochBegan(tile=tile, reason=reason):
                    log.info("%s: tile %d begins anew: %s", self._id, tile, reason)
        self.reseeds = self._homes.reseeds
        for seq in [one for one in self._frames if one < self._homes.kept_from]:
            if self._frames[seq].output.done():
                del self._frames[seq]
        self._changed()

    def _fail(self, seq: int, reason: str) -> None:
        frame = self._frames.get(seq)
        if frame is not None and not frame.output.done():
            frame.output.set_exception(JobFailed(reason))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()
            if self._homes.wake_at() <= now():
                self._homes.tick(now())
                self._act()

    async def _send_all(self) -> None:
        """Send tiles in the order that `Homes` gave."""
        while True:
            send, frame = await self._outgoing.get()
            is_light = frame is not None and frame.run.is_light(self._tiles[send.tile])
            task = await self._threads.tile(partial(self._task, send, frame), light=is_light)
            self._dispatcher.publish_task(send.device, task)

    def _task(self, send: Send, frame: _Frame | None) -> TileTask:
        letter = _LETTERS[send.deed]
        silence = "q" if send.silent else ""
        job = f"{self._id}.{send.seq}.{send.epoch}.{send.after}.{letter}{silence}"
        memory = TileMemory(self._id, send.deed, send.epoch, send.after, send.silent)
        tile = self._tiles[send.tile]
        run = self._template() if frame is None else frame.run
        no_pixels = np.zeros((1, 1), np.uint8)
        pixels = no_pixels if frame is None else frame.sent[tile.outer.slices]
        task = make_task(
            run,
            tile,
            pixels=np.ascontiguousarray(pixels),
            attempt=send.attempt,
            gateway=self._dispatcher.gateway_id,
            lease_s=_LEASE_S,
            wire_codec="raw",
            priority=self._priority,
        )
        changes: dict[str, object] = {"job": job, "memory": memory}
        if frame is None:
            sent = self._stage.sent
            changes |= {
                "shape": (tile.outer.height, tile.outer.width, sent.channels),
                "dtype": sent.dtype,
                "codec": MEMORY_CODEC if send.deed == "load" else NO_PIXELS,
                "pixels": memoryview(send.copy),
            }
        return with_digest(msgspec.structs.replace(task, **changes))

    def _template(self) -> StageRun:
        """Return a run that names the operators, for messages without a frame."""
        newest = self._frames.get(self._seq)
        if newest is not None:
            return newest.run
        operators = self._stage.operators
        image = ArrayImage(np.zeros(self._stage.source.array_shape, self._stage.source.dtype))
        merger = operators[-1].merger(self._stage.result)
        return StageRun(self._id, self._stage, operators, image, self._tiles, merger)

    # --- what devices answer --------------------------------------------------------------

    def _received(self, device: str, message: FromDevice) -> None:
        """Take an answer. Raises WireError."""
        about = _About.read(message.job)
        tile, attempt = message.tile, message.attempt
        if tile >= len(self._tiles):
            raise WireError(f"{message.job} has {len(self._tiles)} tiles, no tile {tile}")
        match message:
            case Result():
                self._tasks.start(self._take(device, about, message), "a result with memory")
                return
            case Failure(have=have) if have is not None:
                self._homes.refused(
                    device, tile, attempt, about.epoch, about.after, have, now(), about.deed
                )
            case Failure(reason=reason):
                self._homes.failed(device, tile, attempt, about.epoch, about.seq, reason, now())
            case Rejected() | Overdue():
                self._homes.full(device, tile, attempt, about.epoch, now())
        self._act()

    async def _take(self, device: str, about: _About, message: Result) -> None:
        if about.deed == "save":
            with suppress(WireError):  # the frames since the last copy are kept
                check_digest(message)
                self._homes.saved(
                    device,
                    message.tile,
                    message.attempt,
                    about.epoch,
                    about.after,
                    bytes(message.pixels),
                    now(),
                )
            self._act()
            return
        if about.deed == "load":
            return
        is_first = self._homes.answered(
            device, message.tile, message.attempt, about.epoch, about.after, about.seq, now()
        )
        self._act()
        frame = self._frames.get(about.seq)
        if not is_first or about.silent or frame is None or message.tile in frame.pasted:
            return
        frame.pasted.add(message.tile)
        try:
            await self._paste(frame, message)
        except WireError as problem:
            log.warning("%s: %s", device, problem)
            frame.pasted.discard(message.tile)
            self._homes.spoiled(device, message.tile, about.epoch, about.seq, now())
        else:
            self._homes.took(message.tile, about.seq, now())
        self._act()

    async def _paste(self, frame: _Frame, message: Result) -> None:
        """Paste a tile's pixels, and finish the frame after the last one. Raises WireError."""
        run, tile = frame.run, self._tiles[message.tile]
        light = run.is_light(tile)
        result = await self._threads.tile(partial(decode_result, run, tile, message), light=light)
        await self._threads.tile(partial(run.merger.paste, tile, result), light=light)
        frame.left -= 1
        if frame.left == 0:
            output = await self._threads.tile(run.merger.finish, light=light)
            if not frame.output.done():
                frame.reseeds = self.reseeds
                frame.output.set_result(output)


@dataclass(frozen=True, slots=True)
class _About:
    """What the name of a task says: which frame it is about, and what is to be done."""

    seq: int
    epoch: int
    after: int
    deed: Deed
    silent: bool

    @classmethod
    def read(cls, job: str) -> _About:
        """Raises WireError."""
        try:
            _, seq, epoch, after, what = job.split(".")
            return cls(int(seq), int(epoch), int(after), _DEEDS[what[:1]], what.endswith("q"))
        except (ValueError, KeyError):
            raise WireError(f"{job!r} names no tile with memory") from None


def _as_sent(stage: Stage, image: Image) -> Image:
    """Return a whole frame as it is sent: a copy, since the source takes its memory back."""
    sent = run_gateway_operators(stage.gateway_operators, image)
    return sent.copy() if np.may_share_memory(sent, image) else sent
