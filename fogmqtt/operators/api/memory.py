"""Operators with memory: what they give for a frame depends on the frames before it.

The frames are those of one *epoch* of a stream, from its first frame on. The rule is that of all
operators: each tile of the stream, with a memory of its own, gives what the whole gives.

| kind      | its memory                          | how a lost memory comes back                   |
|-----------|-------------------------------------|------------------------------------------------|
| window    | the last `window` frames            | those frames are sent again                    |
| recursive | arrays of the image's size          | a copy from time to time, and the frames since |
| opaque    | an object that nobody can look into | a second device that does the same, or never   |

For all three, the memory of a pixel must depend only on the earlier frames within the operator's
halo around it. So memory can be cut and joined like an image.

Nothing may depend on how many frames an *object* has seen, since a new object may take over in the
middle of an epoch: `step` gets the number of frames in the epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import msgspec
import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, WireError
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline
from fogmqtt.operators.api.base import Operator, StageOutput
from fogmqtt.operators.api.results import TileResult

#: What an operator remembers between two frames: arrays whose first two dimensions are the height
#: and width of the image that it gets; or, if it is opaque, whatever it likes.
State = Any
#: Where a memory comes from if its device is lost: see the table above.
MemoryKind = Literal["window", "recursive", "opaque"]


@dataclass(frozen=True)
class MemoryOperator(Operator):
    """Base of the operators with memory. Derive from one of the three kinds below.

    Such an operator runs on streams only.
    """

    has_memory: ClassVar[bool] = True
    kind: ClassVar[MemoryKind] = "recursive"

    @property
    def window(self) -> int | None:
        """How many earlier frames a result depends on; None for all of the epoch."""
        return None

    @property
    def warmup(self) -> int:
        """After how many frames of an epoch the results mean what they should."""
        return self.window or 0

    def state_bytes(self, spec: Spec) -> int:
        """Return about how many bytes the memory of an image of `spec` takes."""
        raise NotImplementedError

    def step(self, image: Image, state: State | None, count: int) -> tuple[Image, State]:
        """Return the result for a frame and the memory after it.

        `count` is the number of frames in the epoch before this one, and `state` what the step
        before returned, which this step may change; None for the first frame. `image` must not be
        kept: a memory of it is a copy.
        """
        raise NotImplementedError

    def process(self, image: Image) -> Image:
        """Return the result for the next frame, if the operator is bound to a memory.

        Raises OperatorError for a single image.
        """
        memory: _Bound | None = self.__dict__.get("_bound")
        if memory is None:
            raise OperatorError(needs_a_stream(self))
        return memory.step(self, image)

    @classmethod
    def missing_method(cls) -> str:
        names = ("step", "state_bytes")
        return next((one for one in names if getattr(cls, one) is getattr(MemoryOperator, one)), "")

    def _bind(self, memory: _Bound) -> Self:
        bound = copy.copy(self)
        object.__setattr__(bound, "_bound", memory)  # frozen, and no parameter
        return bound


@dataclass(frozen=True)
class WindowOperator(MemoryOperator):
    """Base of the operators that need the last frames, and nothing of those before."""

    kind: ClassVar[MemoryKind] = "window"

    def process_window(self, frames: Sequence[Image]) -> Image:
        """Return the result for the last of these frames, the oldest first.

        There are `window` + 1 of them; fewer in the beginning of an epoch, at least one.
        """
        raise NotImplementedError

    def state_bytes(self, spec: Spec) -> int:
        return spec.nbytes * (self.window or 0)

    def step(self, image: Image, state: State | None, count: int) -> tuple[Image, State]:
        del count
        earlier = cast("tuple[Image, ...]", state or ())
        result = self.process_window((*earlier, image))
        return result, (*earlier, image.copy())[-(self.window or 0) :]

    @classmethod
    def missing_method(cls) -> str:
        for name, base in (("process_window", WindowOperator), ("window", MemoryOperator)):
            if getattr(cls, name) is getattr(base, name):
                return name
        return ""


def needs_a_stream(operator: Operator) -> str:
    """Return why an operator with memory is refused for a single image."""
    return (
        f"{operator.name} compares with earlier frames, so it needs a stream: use "
        f"'fog-gateway stream SOURCE --pipeline …', or a pipeline without {operator.name}"
    )


def refuse_memory(operators: Sequence[Operator]) -> None:
    """Raise OperatorError if one of these operators cannot run on a single image."""
    for operator in operators:
        if operator.has_memory:
            raise OperatorError(needs_a_stream(operator))


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """What the operators of a stage, or of a pipeline, remember together."""

    kind: MemoryKind
    #: How many earlier frames give back the whole memory; None for all of the epoch.
    window: int | None
    warmup: int


def memory_needs(operators: Sequence[Operator]) -> MemoryNeeds | None:
    """Return what these operators remember; None if they remember nothing."""
    remembering = [one for one in operators if isinstance(one, MemoryOperator)]
    if not remembering:
        return None
    windows = [one.window for one in remembering]
    warmup = sum(one.warmup for one in remembering)
    known = [one for one in windows if one is not None]
    if len(known) == len(windows):
        return MemoryNeeds("window", sum(known), warmup)
    is_opaque = any(one.kind == "opaque" for one in remembering)
    return MemoryNeeds("opaque" if is_opaque else "recursive", None, warmup)


class _Bound:
    """The memory of one operator while it does a frame."""

    def __init__(self, states: dict[int, State], position: int, count: int) -> None:
        self._states = states
        self._position = position
        self._count = count

    def step(self, operator: MemoryOperator, image: Image) -> Image:
        state = self._states.pop(self._position, None)  # a step that fails may leave half of it
        result, self._states[self._position] = operator.step(image, state, self._count)
        return result


class FrameMemory:
    """What operators remember of the earlier frames, of one tile or of whole images.

    After a method raised, it remembers nothing that can be used: drop it.
    """

    def __init__(self, states: dict[int, State] | None = None) -> None:
        #: Position of the operator → what it remembers.
        self._states: dict[int, State] = {} if states is None else states

    def run_tile(
        self, operators: Sequence[Operator], pixels: Image, core: Rect, seams: Seams, count: int
    ) -> TileResult:
        """Run a stage's operators on a tile of the next frame, as `pipeline.run_tile` does.

        `count` is the number of frames in the epoch before this one.
        """
        return pipeline.run_tile(self.bind(operators, count), pixels, core, seams)

    def bind(self, operators: Sequence[Operator], count: int) -> list[Operator]:
        """Return the operators with what they remember, for the frame after `count` of the epoch.

        They may run once, and change this memory.
        """
        return [self._bind(one, at, count) for at, one in enumerate(operators)]

    def run_whole(
        self, operators: Sequence[Operator], image: Image, original: Image, count: int
    ) -> StageOutput:
        """Run a pipeline on the whole next frame, as `pipeline.run_whole` does."""
        pipeline.output_spec(operators, Spec.of(image))
        done: StageOutput = image
        for at, one in enumerate(operators):
            assert not isinstance(done, dict)  # noqa: S101  # only the last one measures
            prepared = self._bind(one.prepare(done, original), at, count)
            done = pipeline.run_whole([prepared], done, original)
        return done

    def save(self) -> bytes:
        """Return all that is remembered, for `load_memory`. Raises OperatorError if one cannot."""
        saved = []
        for position, state in sorted(self._states.items()):
            if not _is_arrays(state):
                raise OperatorError(
                    f"operator {position + 1} of the stage has a memory that cannot be copied"
                )
            arrays = [
                _SavedArray(one.shape, one.dtype.name, np.ascontiguousarray(one).tobytes())
                for one in state
            ]
            saved.append(_SavedState(position, arrays))
        return msgspec.msgpack.encode(saved)

    def _bind(self, operator: Operator, position: int, count: int) -> Operator:
        if not isinstance(operator, MemoryOperator):
            return operator
        return operator._bind(_Bound(self._states, position, count))


_Dtype = Literal["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]
_Extent = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class _SavedArray(msgspec.Struct, frozen=True, array_like=True):
    shape: Annotated[tuple[_Extent, ...], msgspec.Meta(min_length=2, max_length=3)]
    dtype: _Dtype
    data: bytes


class _SavedState(msgspec.Struct, frozen=True, array_like=True):
    position: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    arrays: list[_SavedArray]


_saved_states = msgspec.msgpack.Decoder(list[_SavedState])


def load_memory(data: bytes | memoryview, operators: Sequence[Operator], size: Rect) -> FrameMemory:
    """Return the memory that `FrameMemory.save` wrote, for tiles of the height and width of `size`.

    Raises WireError if it is not one of these operators and this size.
    """
    try:
        saved = _saved_states.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as problem:
        raise WireError(f"not a memory of operators: {problem}") from None
    states: dict[int, State] = {}
    for one in saved:
        operator = operators[one.position] if one.position < len(operators) else None
        if not isinstance(operator, MemoryOperator) or operator.kind == "opaque":
            raise WireError(f"operator {one.position + 1} of the stage has no memory to load")
        states[one.position] = tuple(_array(array, size) for array in one.arrays)
    return FrameMemory(states)


def _array(saved: _SavedArray, size: Rect) -> Image:
    dtype = np.dtype(saved.dtype)
    if saved.shape[:2] != (size.height, size.width):
        raise WireError(f"a memory of {saved.shape} does not fit {size.height}x{size.width} pixels")
    if len(saved.data) != math.prod(saved.shape) * dtype.itemsize:
        raise WireError(f"a memory of {saved.shape} {dtype} cannot have {len(saved.data)} bytes")
    return np.frombuffer(saved.data, dtype).reshape(saved.shape).copy()


def _is_arrays(state: State) -> bool:
    return isinstance(state, tuple) and all(isinstance(one, np.ndarray) for one in state)
