"""The test that every operator with memory must pass: a stream in tiles equals one machine.

    from fogmqtt.operators.api.stream_law import check_stream_law

    def test_afterglow_is_exact() -> None:
        check_stream_law(Afterglow(), [cv2.imread(f"frame{n}.png") for n in range(20)])

The test cuts frames into tiles and does them on devices in virtual time. Messages are lost, doubled
and reordered, devices are killed and come back. Each result must be that of one machine which saw
all frames of the epoch, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

import numpy as np

from fogmqtt.core.geometry import Grid, Rect, Size, Tile, cut
from fogmqtt.core.streaming.homes import HomeRules, Homes
from fogmqtt.core.streaming.virtual_fleet import StreamFaults, StreamOutcome, VirtualFleet
from fogmqtt.errors import OperatorError
from fogmqtt.images.compare import difference
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, results
from fogmqtt.operators.api.base import Operator, StageOutput
from fogmqtt.operators.api.measuring import count_differences
from fogmqtt.operators.api.memory import FrameMemory, load_memory, memory_needs
from fogmqtt.operators.api.pipeline import Stage
from fogmqtt.operators.api.results import EncodedResult
from fogmqtt.operators.api.testing import FixedPlan, as_received, round_trip

#: Strips, an uneven grid, and tiles that are smaller than most halos.
STREAM_PLANS: Sequence[FixedPlan] = (Grid(1, 3), Grid(3, 2), Size(33, 64))
_DEVICES: Final = ("ada", "bob", "eve")
_CALM: Final = StreamFaults()
_TROUBLE: Final = StreamFaults(lost=0.05, doubled=0.1, reordered=True, killed=0.2, forgotten=0.1)
#: First frame of an epoch → what one machine gives for it and the frames after.
_Bases = dict[int, list[StageOutput]]


def check_stream_law(
    operator: Operator | Sequence[Operator],
    frames: Sequence[Image],
    plans: Sequence[FixedPlan] = STREAM_PLANS,
    *,
    seed: int = 0,
) -> None:
    """Raise OperatorError if a result of a stream in tiles differs from that of one machine.

    A sequence of operators is run as a pipeline; it must be one stage. Use a dozen frames or more,
    of equal size, in which something moves. `seed` chooses the faults.
    """
    operators = (operator,) if isinstance(operator, Operator) else tuple(operator)
    stages = pipeline.split_stages(operators, Spec.of(frames[0]))
    text = pipeline.format_pipeline(operators)
    if len(stages) != 1 or not stages[0].tiled:
        raise OperatorError(f"{text} has stages on the gateway; check each of its stages")
    read_only = [_read_only(one) for one in frames]
    whole: _Bases = {}
    for number, plan in enumerate(plans):
        for faults in (_CALM, _TROUBLE):
            random = Random(f"{seed}/{number}")  # noqa: S311  # chooses faults
            outcome, tiles = _run(stages[0], read_only, plan, faults, random)
            _compare(
                operators, stages[0], read_only, tiles, outcome, whole, f"{text}, cut by {plan}"
            )
            if faults is _CALM and outcome.failed:
                raise OperatorError(f"{text}, cut by {plan}: {outcome.failed[0].reason}")


def _read_only(frame: Image) -> Image:
    copied = frame.copy()
    copied.flags.writeable = False  # an operator that changes its input then raises
    return copied


def _run(
    stage: Stage, frames: Sequence[Image], plan: FixedPlan, faults: StreamFaults, random: Random
) -> tuple[StreamOutcome[EncodedResult], Sequence[Tile]]:
    tiles = cut(stage.source.size, plan, halo=stage.halo, align=stage.align)
    needs = memory_needs(stage.operators)
    rules = HomeRules(
        window=0 if needs is None else needs.window,
        can_copy=needs is not None and needs.kind == "recursive",
        standby=random.choice((0, 0, 1)),
        snapshot_s=random.choice((0.5, 2.0)),
        reseed=random.choice(("tile", "stream")),
    )
    homes = Homes([one.core.pixels for one in tiles], rules)
    fleet: VirtualFleet[Image, FrameMemory, EncodedResult] = VirtualFleet(
        homes, _Devices(stage, tiles), _DEVICES, random, faults
    )
    return fleet.run(frames), tiles


class _Devices:
    """Does tiles as devices do: operators and pixels arrive as bytes."""

    def __init__(self, stage: Stage, tiles: Sequence[Tile]) -> None:
        self._stage = stage
        self._tiles = tiles

    def do(
        self, tile: int, frame: Image, memory: FrameMemory | None, count: int
    ) -> tuple[EncodedResult, FrameMemory]:
        stage, at = self._stage, self._tiles[tile]
        prepared = pipeline.prepare(stage, frame, frame)
        operators = round_trip(
            pipeline.for_tile(prepared, at.outer, frame.shape[:2]),
            "msgpack" if tile % 2 else "json",
        )
        sent = pipeline.run_gateway_operators(stage.gateway_operators, frame[at.outer.slices])
        memory = FrameMemory() if memory is None else memory
        core = at.core.within(at.outer)
        result = memory.run_tile(operators, as_received(sent), core, at.seams, count)
        last = operators[-1]
        return results.encode(last, result, core, last.result_codec), memory

    def save(self, memory: FrameMemory) -> bytes:
        return memory.save()

    def load(self, tile: int, data: bytes) -> FrameMemory:
        outer = self._tiles[tile].outer
        return load_memory(data, self._stage.operators, Rect(0, 0, outer.height, outer.width))


def _compare(
    operators: Sequence[Operator],
    stage: Stage,
    frames: Sequence[Image],
    tiles: Sequence[Tile],
    outcome: StreamOutcome[EncodedResult],
    whole: _Bases,
    text: str,
) -> None:
    """Raise OperatorError if a frame's tiles differ from one machine's result."""
    last = stage.operators[-1]
    for seq in range(1, len(frames) + 1):
        done = {tile.index: outcome.results.get((tile.index, seq)) for tile in tiles}
        bases = {one[1] for one in done.values() if one is not None}
        for base in bases:
            expected = _whole(operators, frames, base, whole)[seq - base]
            having = [tile for tile in tiles if (one := done[tile.index]) and one[1] == base]
            decoded = {
                tile.index: results.decode(last, one[0])
                for tile in having
                if (one := done[tile.index])
            }
            if isinstance(expected, np.ndarray):
                for tile in having:
                    _same(decoded[tile.index], expected[tile.core.slices], f"{text}, frame {seq}")
            elif len(having) == len(tiles):
                merger = last.merger(stage.result)
                for tile in having:
                    merger.paste(tile, decoded[tile.index])
                _same(merger.finish(), expected, f"{text}, frame {seq}")


def _same(actual: object, expected: object, text: str) -> None:
    if isinstance(actual, np.ndarray) and isinstance(expected, np.ndarray):
        found = difference(actual, expected)
        if found.pixels:
            raise OperatorError(
                f"{text}: tiles differ from one machine in {found.pixels} pixels; a pixel's memory "
                "may depend on more than its halo, or on how many frames an object has seen"
            )
        return
    values, total = count_differences(actual, expected)
    if values:
        raise OperatorError(f"{text}: tiles differ from one machine in {values} of {total} values")


def _whole(
    operators: Sequence[Operator], frames: Sequence[Image], base: int, known: _Bases
) -> list[StageOutput]:
    """Return what one machine gives that sees the frames from `base` on."""
    if base not in known:
        memory = FrameMemory()
        known[base] = [
            memory.run_whole(operators, frame, frame, count)
            for count, frame in enumerate(frames[base - 1 :])
        ]
    return known[base]
