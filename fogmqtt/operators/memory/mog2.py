"""OpenCV's background subtraction by a mixture of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Samples, build_dependent
from fogmqtt.operators.api.memory import MemoryKind, MemoryOperator, State

#: Bytes of the model for each pixel: 5 Gaussians with weight, variance and means, and their number.
_MODES = 5


@dataclass(frozen=True)
class Mog2(MemoryOperator):
    """Foreground mask by `cv2.createBackgroundSubtractorMOG2` (Zivkovic, 2004); for streams.

    Takes uint8 of 1 or 3 channels; the result is uint8 of 1 channel: 255 in the foreground, 127 in
    shadows, else 0. The learning rate is 1 / min(2 * n, history) for the frame n of the epoch, as
    OpenCV chooses it. Halo 0. Uses float32 arithmetic and is exact only between devices with the
    same OpenCV build and kind of processor. Nobody can copy the memory, so a lost device begins a
    new epoch, unless a second device does the same work; `background` has no such limit. Memory:
    101 bytes for each colour pixel, 61 for gray.

    Parameters
    ----------
    history : int
        About how many frames the background remembers, 1 to 100000.
    threshold : float
        Squared distance from the background, in variances, over which a pixel is foreground, 1 to
        10000.
    shadows : bool
        Whether to mark shadows with 127; without, they are foreground.
    """

    name: ClassVar[str] = "mog2"
    kind: ClassVar[MemoryKind] = "opaque"
    exactness: ClassVar[str] = build_dependent("float32")
    samples: ClassVar[Samples] = ({"history": 4}, {})

    history: int = 500
    threshold: float = 16.0
    shadows: bool = True

    def __post_init__(self) -> None:
        self._require(1 <= self.history <= 100_000, "history", "expected 1 to 100000")
        self._require(1 <= self.threshold <= 10_000, "threshold", "expected 1 to 10000")

    @property
    def warmup(self) -> int:
        return min(self.history, 100)

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        return replace(spec, channels=1)

    def state_bytes(self, spec: Spec) -> int:
        return spec.height * spec.width * (_MODES * 4 * (2 + spec.channels) + 1)

    def step(self, image: Image, state: State | None, count: int) -> tuple[Image, State]:
        model: Any = state
        if model is None:
            model = cv2.createBackgroundSubtractorMOG2(self.history, self.threshold, self.shadows)
        # OpenCV's own rate counts the frames of the object, and not those of the epoch.
        return model.apply(image, learningRate=1 / min(2 * (count + 1), self.history)), model
