"""What a worker's process remembers of the tiles of streams, from frame to frame."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from fogmqtt.core.geometry import Rect
from fogmqtt.core.streaming.memory_store import (
    Ask,
    Granted,
    MemoryKey,
    MemoryStore,
    Mismatch,
    Remembered,
)
from fogmqtt.errors import OperatorError, WireError, WrongMemory
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.memory import FrameMemory, MemoryOperator, load_memory
from fogmqtt.wire.messages import MEMORY_CODEC, NO_PIXELS, TileMemory, TileTask
from fogmqtt.workers.stage import run_stage
from fogmqtt.workers.work import TileOutput

#: Seconds after which a memory is forgotten that no task came for: its stream has ended.
IDLE_S: Final = 60.0
#: The part of a worker's memory that all of its tiles may take together.
_SHARE: Final = 0.5
#: The same in bytes for a worker without a limit.
_UNLIMITED_BYTES: Final = 1 << 30


class TileMemories:
    """The memories of one worker. `memory_mb` is the worker's limit; 0 means none."""

    def __init__(self, memory_mb: int) -> None:
        self._max_bytes = int((memory_mb << 20) * _SHARE) if memory_mb else _UNLIMITED_BYTES
        self._store: MemoryStore[FrameMemory, TileOutput] = MemoryStore(self._max_bytes)

    def expire(self, now: float) -> bool:
        """Forget what no task came for; returns whether something is left. Monotonic seconds."""
        self._store.expire(now - IDLE_S)
        return len(self._store) > 0

    def compute(self, task: TileTask, memory: TileMemory) -> TileOutput:
        """Do a task with memory.

        Raises WrongMemory if the memory has another version, FogError for an impossible task, and
        any exception of an operator.
        """
        key = MemoryKey(task.gateway, memory.stream, task.tile)
        ask = Ask(memory.deed, memory.epoch, task.attempt, memory.after)
        match self._store.look(key, ask):
            case Mismatch(have):
                raise WrongMemory(have, memory.after)
            case Remembered(answer):
                return _answer(answer, memory)
            case Granted(found):
                try:
                    return self._do(key, ask, task, found, memory)
                except BaseException:
                    self._store.drop(key)
                    raise

    def _do(
        self,
        key: MemoryKey,
        ask: Ask,
        task: TileTask,
        found: FrameMemory | None,
        memory: TileMemory,
    ) -> TileOutput:
        operators = tuple(registry.build(call.name, call.params) for call in task.stage)
        nbytes = _memory_bytes(operators, Spec(*task.shape, task.dtype))
        if memory.deed == "save":
            data = FrameMemory().save() if found is None else found.save()
            return _without_array(task, memoryview(data), MEMORY_CODEC)
        if memory.deed == "load":
            if task.codec != MEMORY_CODEC:
                raise WireError(f"a memory cannot be loaded from codec {task.codec!r}")
            loaded = load_memory(task.pixels, operators, Rect(0, 0, *task.shape[:2]))
            self._keep(key, ask, loaded, nbytes, None)
            return _without_array(task, memoryview(b""), NO_PIXELS)
        found = FrameMemory() if found is None else found
        output = run_stage(found.bind(operators, memory.after), task)
        self._keep(key, ask, found, nbytes, output)
        return _answer(output, memory)

    def _keep(
        self, key: MemoryKey, ask: Ask, memory: FrameMemory, nbytes: int, answer: TileOutput | None
    ) -> None:
        if not self._store.keep(key, ask, memory, nbytes, answer, time.monotonic()):
            raise OperatorError(
                f"the memory of the tile takes {nbytes >> 20} MB, and a worker has "
                f"{self._max_bytes >> 20} MB for all of them (device.worker_memory_mb); use more "
                "devices or smaller frames"
            )


def _answer(output: TileOutput, memory: TileMemory) -> TileOutput:
    if not memory.silent:
        return output
    return TileOutput(memoryview(b""), output.shape, output.dtype, NO_PIXELS)


def _without_array(task: TileTask, data: memoryview, codec_name: str) -> TileOutput:
    return TileOutput(data, (*task.core[2:], 1), "uint8", codec_name)


def _memory_bytes(operators: Sequence[Operator], spec: Spec) -> int:
    """Return about how many bytes the operators remember of a tile. Raises OperatorError."""
    total = 0
    for operator in operators:
        if isinstance(operator, MemoryOperator):
            total += operator.state_bytes(spec)
        spec = operator.output(spec)
    return total
