"""The law of streams: tiles with memory equal one machine, whatever is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid
from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.api.memory import (
    FrameMemory,
    MemoryOperator,
    State,
    WindowOperator,
)
from fogmqtt.operators.api.stream_law import check_stream_law
from tests.drawn import MEMORY_PARAMS, operators

SETTINGS = settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.too_slow])


def moving(
    count: int = 14, size: tuple[int, int] = (73, 91), *, colour: bool = False, seed: int = 1
) -> list[Image]:
    """Frames of a noisy slope over which a bright square moves."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    frames = []
    for number in range(count):
        frame = (rows + 2 * columns) % 200 + rng.integers(0, 12, size)
        top, left = (number * 5) % (size[0] - 12), (number * 7) % (size[1] - 12)
        frame[top : top + 12, left : left + 12] = 240
        gray = frame.astype(np.uint8)
        frames.append(np.dstack((gray, 255 - gray, gray // 2)) if colour else gray)
    return frames


@pytest.mark.parametrize("name", sorted(MEMORY_PARAMS))
@SETTINGS
@given(data=st.data())
def test_a_stream_in_tiles_equals_one_machine(name: str, data: st.DataObject) -> None:
    frames = moving(colour=data.draw(st.booleans()), seed=data.draw(st.integers(0, 99)))
    plan = Grid(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    seed = data.draw(st.integers(0, 2**32))
    check_stream_law(data.draw(operators(name)), frames, [plan], seed=seed)


@pytest.mark.parametrize(
    "text",
    [
        "gray | gaussian ksize=5 | background rate=2 | open ksize=3",
        "gray | median_of frames=3 | diff | threshold value=20 | components",
        "diff | median_of | average rate=2",
        "gray | background rate=2 | dilate | mog2 history=20",
    ],
)
def test_a_pipeline_with_memory_equals_one_machine(text: str) -> None:
    check_stream_law(pipeline.parse(text), moving(colour=True), [Grid(2, 3)])


def test_every_operator_with_memory_is_tested_here() -> None:
    found = [name for name in registry.names() if registry.load(name).has_memory]
    assert found == sorted(MEMORY_PARAMS), "a row is missing in MEMORY_PARAMS of tests/drawn.py"


@dataclass(frozen=True)
class Spreading(MemoryOperator):
    """Wrong: what it remembers of a pixel spreads to its neighbours with each frame."""

    name: ClassVar[str] = "spreading"

    @property
    def halo(self) -> int:
        return 1

    def state_bytes(self, spec: Spec) -> int:
        return spec.nbytes

    def step(self, image: Image, state: State | None, count: int) -> tuple[Image, State]:
        if state is None:
            return image.copy(), (image.copy(),)
        (before,) = cast("tuple[Image]", state)
        spread = cv2.max(cv2.dilate(before, np.ones((3, 3), np.uint8)), image)
        return spread, (spread.copy(),)


@dataclass(frozen=True)
class Short(WindowOperator):
    """Wrong: it keeps fewer frames than it looks at."""

    name: ClassVar[str] = "short"

    @property
    def window(self) -> int:
        return 1

    def step(self, image: Image, state: State | None, count: int) -> tuple[Image, State]:
        frames = (*cast("tuple[Image, ...]", state or ()), image.copy())
        oldest: Sequence[Any] = frames[-4:]
        return cv2.absdiff(oldest[0], image), oldest


@pytest.mark.parametrize("operator", [Spreading(), Short()])
def test_an_operator_whose_memory_is_not_of_its_pixels_is_found(operator: MemoryOperator) -> None:
    with pytest.raises(OperatorError, match="tiles differ from one machine"):
        check_stream_law(operator, moving(20), [Grid(3, 2)])


def test_mog2_in_tiles_equals_the_whole_over_many_frames() -> None:
    """The learning rate is the epoch's, so it equals the one that OpenCV chooses by itself."""
    frames = moving(40, (41, 53))
    for text in ("mog2", "mog2 shadows=false threshold=30"):
        memory, model = FrameMemory(), _model(text)
        for count, frame in enumerate(frames):
            chosen = model.apply(frame)
            ours = memory.run_whole(pipeline.parse(text), frame, frame, count)
            assert np.array_equal(cast(Image, ours), chosen)
        check_stream_law(pipeline.parse(text), frames, [Grid(2, 2)])


def _model(text: str) -> Any:
    is_short = "shadows=false" in text
    return cv2.createBackgroundSubtractorMOG2(500, 30.0 if is_short else 16.0, not is_short)
