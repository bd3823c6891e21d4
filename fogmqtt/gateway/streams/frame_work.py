"""Does the frames of a stream: by tiles, whole on devices, or here.

A frame is a stage with a deadline for the dispatcher, without ledger, spool and status topic. What
does not change from frame to frame is prepared once: stages, abilities and tiles.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec import Struct

from fogmqtt.config import GatewayConfig, StreamSettings
from fogmqtt.core.geometry import Auto, Grid, Tile
from fogmqtt.core.streaming.recording import Remembered
from fogmqtt.core.streaming.split import Way
from fogmqtt.errors import PlanError
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import AbleDevice, DeviceRegistry
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun, plan_tiles
from fogmqtt.gateway.jobs.memory_budget import MemoryBudget
from fogmqtt.gateway.jobs.model import Job, JobRequest
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.metrics import Metrics
from fogmqtt.gateway.streams.memory_stage import MemoryStage
from fogmqtt.gateway.streams.turns import Turn
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.source import ArrayImage
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry as operator_registry
from fogmqtt.operators.api.base import Operator, PasteMerger, StageOutput
from fogmqtt.operators.api.memory import FrameMemory, memory_needs
from fogmqtt.operators.api.pipeline import Stage, parse, prepare, run_whole, split_stages
from fogmqtt.streams.frame import Frame

#: Frames that are done by tiles at the same time: while devices do one, the next is cut and sent.
_TILED_AT_ONCE: Final = 2
#: Whole frames that are under way at the same time, at most.
_MOST_AT_ONCE: Final = 8
#: Frames that this machine works on at the same time, at most.
_MOST_HERE: Final = 2
#: Tiles of a frame for each worker, at most: they even out devices of different speeds.
_MOST_PER_WORKER: Final = 4
#: Tiles of a frame with memory, at least: devices that come later take those of lost ones.
_LEAST_MEMORY_TILES: Final = 4
#: Seconds that the memory of a frame is kept after an early end: it may still be on its way.
_LINGER_S: Final = 1.0


class FrameHold:
    """The memory of a frame, which goes back to its source when nobody reads it any more."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self._readers = 1
        self._loop = asyncio.get_running_loop()

    def keep(self) -> None:
        """Another one reads it. Call this in the event loop."""
        self._readers += 1

    def drop(self) -> None:
        """One that read it is done."""
        self._readers -= 1
        if not self._readers:
            self.frame.release()

    def drop_later(self) -> None:
        """One that read it was interrupted: what it sent may still be read."""
        self._loop.call_later(_LINGER_S, self.drop)


class _Plan(Struct, frozen=True):
    """The tiles of a stage, and what they were made for."""

    tiles: tuple[Tile, ...]
    made_for: object


class _PreparedStage(Struct):
    stage: Stage
    #: The abilities that a device must have.
    needs: frozenset[str]
    #: The plans of each way; made when they are needed.
    plans: dict[Way, _Plan]


class _Prepared(Struct, frozen=True):
    """A pipeline for frames of one size and kind."""

    spec: Spec
    stages: tuple[_PreparedStage, ...]


class FrameWork:
    """Does the frames of one stream. It belongs to the event loop."""

    def __init__(
        self,
        name: str,
        pipeline: str,
        settings: StreamSettings,
        config: GatewayConfig,
        registry: DeviceRegistry,
        dispatcher: Dispatcher,
        threads: Threads,
        metrics: Metrics,
    ) -> None:
        self.pipeline = pipeline
        self.operators = parse(pipeline)
        self._name = name
        self._settings = settings
        self._registry = registry
        self._dispatcher = dispatcher
        self._threads = threads
        self._metrics = metrics
        self._works_here = config.gateway.local != "never" and all(
            operator_registry.is_built_in(operator.name) for operator in self.operators
        )
        self._prepared: _Prepared | None = None
        #: Frames that this machine works on, those included that nobody waits for any more.
        self._busy_here = 0
        self._memory = MemoryBudget().reservation()
        self._needs = memory_needs(self.operators)
        #: With memory: by tiles on devices or here, from the first frame of an epoch on.
        self._mode: Way | None = None
        #: Stages with memory, by their position in the pipeline.
        self._memories: dict[int, MemoryStage] = {}
        self._here_memory = FrameMemory()
        #: The frames that it has seen, and whether one of them failed or never began.
        self._here_count = 0
        self._here_failed = False
        self._turn: Turn | None = None
        #: Frame → how many memories had been lost when it was done.
        self._frame_reseeds: dict[int, int] = {}
        #: Frame → the stages with memory that it entered.
        self._entered: dict[int, int] = {}
        self._able_at = -math.inf
        self._switches = 0
        self._past_reseeds = 0
        self._closing = BackgroundTasks()
        #: Set when another frame may have room: one ended, or the memories have seen one.
        self.freed = asyncio.Event()
        # A late result of an earlier run of this gateway fits no frame.
        self._id = f"s{secrets.token_hex(6)}"

    @property
    def measures(self) -> bool:
        """Whether the results are facts."""
        return self.operators[-1].measures

    def ways(self, image: Image) -> tuple[Way, ...]:
        """Return the ways in which a frame can be done now; none if nobody can do it.

        Raises OperatorError if the operators cannot take such a frame.
        """
        prepared, split = self._prepare(image), self._settings.split
        if self._needs is not None:
            return self._ways_with_memory(prepared)
        tiled = [one for one in prepared.stages if one.stage.tiled]
        is_free_here = self._busy_here < _MOST_HERE
        if not tiled:
            return ("here",) if is_free_here else ()
        able = self._able(tiled[0])
        found: list[Way] = []
        if able and split in ("auto", "tiles"):
            found.append("tiles")
        if able and split in ("auto", "frames") and self._fits(tiled):
            found.append("frames")
        if self._works_here and is_free_here and (split == "auto" or not able):
            found.append("here")
        return tuple(found)

    def result_size(self, image: Image) -> tuple[int, int]:
        """Return height and width of the picture that a frame's result is of."""
        return self._prepare(image).stages[-1].stage.result.size

    def at_once(self, way: Way) -> int:
        """Return how many frames should be under way at the same time."""
        if way == "frames":
            return max(1, min(self._registry.workers() + 1, _MOST_AT_ONCE))
        return _TILED_AT_ONCE if way == "tiles" else 1

    @property
    def has_room(self) -> bool:
        """Whether the memories of operators have seen the frames before, so that one more may
        begin.
        """
        return all(one.has_room for one in self._memories.values())

    async def process(
        self, hold: FrameHold, number: int, way: Way, deadline: float | None
    ) -> StageOutput:
        """Do a frame. Raises FogError, and what operators raise."""
        image = hold.frame.image
        if self._needs is not None:
            return await self._with_memory(hold, number, way)
        if way == "here":
            return await self._here(hold, self.operators, image, image)
        entering: Image = image
        output: StageOutput = image
        prepared = self._prepare(image)
        for position, one in enumerate(prepared.stages):
            if one.stage.tiled:
                key = f"{self._id}.{number}.{position}"
                output = await self._by_fleet(key, one, entering, image, way, deadline)
            else:
                output = await self._here(hold, one.stage.operators, entering, image)
            if not isinstance(output, dict):
                entering = output
        return output

    async def whole(self, hold: FrameHold) -> StageOutput:
        """Do a frame whole on this machine, to compare. Operators with memory cannot."""
        return await self._here(hold, self.operators, hold.frame.image, hold.frame.image)

    async def _here(
        self, hold: FrameHold, operators: tuple[Operator, ...], image: Image, original: Image
    ) -> StageOutput:
        return await self._in_thread(hold, partial(run_whole, operators, image, original), image)

    async def _in_thread(
        self, hold: FrameHold, compute: Callable[[], StageOutput], image: Image
    ) -> StageOutput:
        loop = asyncio.get_running_loop()
        hold.keep()
        self._busy_here += 1

        def work() -> StageOutput:
            try:
                return compute()
            finally:
                with suppress(RuntimeError):  # the loop is closed: the gateway has stopped
                    loop.call_soon_threadsafe(ended)

        def ended() -> None:
            self._busy_here -= 1
            hold.drop()

        return await self._threads.image(work, image.shape[0] * image.shape[1])

    # --- operators with memory --------------------------------------------------------------

    @property
    def remembers(self) -> bool:
        """Whether results depend on earlier frames."""
        return self._needs is not None

    @property
    def reseeds(self) -> int:
        """How often an operator with memory began anew because the memory was lost."""
        return self._past_reseeds + sum(one.reseeds for one in self._memories.values())

    @property
    def switches(self) -> int:
        """How often all memories were emptied, since frames are done elsewhere or one failed."""
        return self._switches

    @property
    def warming(self) -> int:
        """The tiles whose memory is too young for their results to mean much."""
        if self._mode == "here" and self._needs is not None:
            return int(self._here_count <= self._needs.warmup)
        return sum(one.warming for one in self._memories.values())

    def reseeds_of(self, number: int) -> int:
        """Return how many memories had been lost when a frame was done; ask once."""
        return self._frame_reseeds.pop(number, self.reseeds)

    def remembered(self, number: int) -> Remembered:
        """Return what of the memories has seen a frame; ask once."""
        entered = self._entered.pop(number, 0)
        if not entered:
            return "nothing"
        return "all" if self._mode == "here" or entered >= len(self._memories) else "some"

    def begin_epoch(self) -> None:
        """Forget all earlier frames."""
        self._past_reseeds = self.reseeds
        for one in self._memories.values():
            self._closing.start(one.close(), "the end of a stage with memory")
        self._memories = {}
        self._here_memory, self._here_count, self._here_failed = FrameMemory(), 0, False

    async def close(self) -> None:
        """End all work."""
        self.begin_epoch()
        await self._closing.finish()

    def _ways_with_memory(self, prepared: _Prepared) -> tuple[Way, ...]:
        """Return the one way in which the next frame can be done now: where the memory is."""
        tiled = next((one for one in prepared.stages if one.stage.tiled), None)
        able = {} if tiled is None else self._able(tiled)
        if able:
            self._able_at = now()
        if able or (self._mode == "tiles" and now() < self._able_at + self._settings.stall_s):
            self._switch("tiles")
            return ("tiles",) if able and self._homes_are_ready(prepared) else ()
        if not self._works_here or self._busy_here:
            return ()
        self._switch("here")
        if self._here_failed:
            self._switches += 1
            self.begin_epoch()
        return ("here",)

    def _switch(self, mode: Way) -> None:
        if self._mode not in (None, mode):
            self._switches += 1
            self.begin_epoch()
        self._mode = mode

    def _homes_are_ready(self, prepared: _Prepared) -> bool:
        for position, one in enumerate(prepared.stages):
            needs = memory_needs(one.stage.operators)
            if needs is None or not one.stage.tiled:
                continue
            if position not in self._memories:
                self._memories[position] = MemoryStage(
                    one.stage,
                    self._memory_tiles(one),
                    needs,
                    self._settings,
                    self._dispatcher,
                    self._threads,
                    partial(self._able, one),
                    self.freed.set,
                )
            self._memories[position].look()
        return all(one.is_ready for one in self._memories.values())

    def _memory_tiles(self, one: _PreparedStage) -> tuple[Tile, ...]:
        """Return the tiles of a stage with memory, which stay as long as the epoch."""
        count = max(_tile_count(self._able(one)), _LEAST_MEMORY_TILES)
        return _plan(one.stage, count, self._dispatcher.limits())

    async def _with_memory(self, hold: FrameHold, number: int, way: Way) -> StageOutput:
        """Do a frame after the one before it."""
        if way == "here":
            self._entered[number] = 1
            return await self._here_with_memory(hold)
        turn = self._turn = Turn(self._turn)
        memories, prepared = self._memories, self._prepare(hold.frame.image)
        image = entering = hold.frame.image
        output: StageOutput = image
        try:
            for position, one in enumerate(prepared.stages):
                if (memory := memories.get(position)) is not None:
                    output = await self._remembered(
                        memory, one, entering, image, turn, position, number
                    )
                elif one.stage.tiled:
                    key = f"{self._id}.{number}.{position}"
                    output = await self._by_fleet(key, one, entering, image, way, None)
                else:
                    output = await self._here(hold, one.stage.operators, entering, image)
                if not isinstance(output, dict):
                    entering = output
        finally:
            turn.finish()
        return output

    async def _remembered(
        self,
        memory: MemoryStage,
        one: _PreparedStage,
        image: Image,
        original: Image,
        turn: Turn,
        position: int,
        number: int,
    ) -> StageOutput:
        operators = await self._operators(one.stage, image, original)
        frame = await memory.prepare(image, operators)
        await turn.wait(position)
        others = self.reseeds - memory.reseeds
        seq = memory.begin(frame)
        self._entered[number] = self._entered.get(number, 0) + 1
        turn.entered(position)
        output, reseeds = await memory.result(seq, frame)
        self._frame_reseeds[number] = others + reseeds
        return output

    async def _here_with_memory(self, hold: FrameHold) -> StageOutput:
        image, memory, count = hold.frame.image, self._here_memory, self._here_count
        self._here_count += 1
        self._here_failed = True  # until the frame is done

        def compute() -> StageOutput:
            output = memory.run_whole(self.operators, image, image, count)
            if memory is self._here_memory:
                self._here_failed = False
            return output

        return await self._in_thread(hold, compute, image)

    async def _operators(self, stage: Stage, image: Image, original: Image) -> tuple[Operator, ...]:
        """Return a stage's operators, with what they learn of the whole image."""
        if not stage.operators[0].reads_image:
            return stage.operators
        return await self._threads.image(
            partial(prepare, stage, image, original), image.shape[0] * image.shape[1]
        )

    async def _by_fleet(
        self,
        key: str,
        one: _PreparedStage,
        image: Image,
        original: Image,
        way: Way,
        deadline: float | None,
    ) -> StageOutput:
        """Cut, send, paste the results, and merge."""
        stage, operators = one.stage, await self._operators(one.stage, image, original)
        run = StageRun(
            key,
            stage,
            operators,
            ArrayImage(image),
            self._tiles(one, way),
            operators[-1].merger(stage.result),
        )
        until = math.inf if deadline is None else deadline
        with self._dispatcher.scheduled(self._job(key), run, one.needs, deadline=until) as active:
            async for kept in active.results():
                tile = run.tile(kept.tile)
                paste = partial(run.merger.paste, tile, kept.result)
                await self._threads.tile(paste, light=run.is_light(tile))
        if isinstance(run.merger, PasteMerger):
            return run.merger.finish()
        return await self._threads.tile(run.merger.finish)

    def _job(self, key: str) -> Job:
        """Return what the dispatcher knows a frame by."""
        request = JobRequest(
            self._name, self.pipeline, priority=self._settings.priority, listed=False, job=key
        )
        report = Report(key, self._name, self.pipeline, listed=False)
        return Job(request, report, self._memory, attempt_ended=self._metrics.attempt_ended)

    def _prepare(self, image: Image) -> _Prepared:
        spec = Spec.of(image)
        if self._prepared is None or self._prepared.spec != spec:
            needs = self._registry.compatibility.needs
            stages = split_stages(self.operators, spec)
            self._prepared = _Prepared(
                spec, tuple(_PreparedStage(one, needs(one), {}) for one in stages)
            )
        return self._prepared

    def _able(self, one: _PreparedStage) -> Mapping[str, AbleDevice]:
        return self._registry.able(self._dispatcher.ready_devices(), one.stage)

    def _fits(self, stages: list[_PreparedStage]) -> bool:
        """Whether a whole frame fits into a message."""
        try:
            for one in stages:
                self._tiles(one, "frames")
        except PlanError:
            return False
        return True

    def _tiles(self, one: _PreparedStage, way: Way) -> tuple[Tile, ...]:
        limits = self._dispatcher.limits(whole=way == "frames")
        count = 1 if way == "frames" else _tile_count(self._able(one))
        made_for, plan = (limits, count), one.plans.get(way)
        if plan is None or plan.made_for != made_for:
            tiles = _plan(one.stage, count, limits)
            plan = one.plans[way] = _Plan(tiles, made_for)
        return plan.tiles


def _tile_count(able: Mapping[str, AbleDevice]) -> int:
    """Return in how many tiles a frame is cut: a tile is the share of the slowest worker."""
    workers = max(1, sum(device.workers for device in able.values()))
    slowest = min((device.relative_speed for device in able.values()), default=1.0)
    speed = sum(device.workers * device.relative_speed for device in able.values())
    count = round(speed / slowest) if slowest > 0 else workers
    return max(workers, min(count, _MOST_PER_WORKER * workers))


def _plan(stage: Stage, count: int, limits: MessageLimits) -> tuple[Tile, ...]:
    """Cut a frame into so many strips, or more if messages must be smaller. Raises PlanError."""
    if count == 1:
        return plan_tiles(stage, Grid(1, 1), limits.pixel_bytes, 1)
    rows = stage.source.height // max(stage.align, 1)
    for strips in range(min(count, rows), min(4 * count, rows) + 1):
        try:
            return plan_tiles(stage, Grid(strips, 1), limits.pixel_bytes, strips)
        except PlanError:
            continue
    return plan_tiles(stage, Auto(), limits.pixel_bytes, count)
