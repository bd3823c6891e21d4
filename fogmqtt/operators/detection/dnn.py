"""Object detection with a neural network: an ONNX file that is identified by its hash."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.cv import cv2
from fogmqtt.images.frames import Colour, frame
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts, ProbedVariant, Samples
from fogmqtt.operators.support import models, onnx_runtime
from fogmqtt.operators.support.boxes import (
    FORMS,
    SCORE_SCALE,
    Boxes,
    parse_output,
    suppress_overlaps,
)
from fogmqtt.operators.support.sliding_window import TileFindings, WindowDetector

_LARGEST = 4096
_Place = Annotated[int, msgspec.Meta(ge=0, le=100 * _LARGEST)]
#: The colour that fills the window of a small image, as in the training of YOLO.
_FILL = (114, 114, 114)
#: A box that ends within 1/64 of the window from a cut side may be only a part of its object.
_NEAR_FRACTION = 64
#: A network of the layers that detectors are made of, by which devices are compared.
_PROBE = Path(__file__).with_name("probe.onnx")
_PROBE_SIDE = 96
_T = TypeVar("_T")
_HASH = re.compile(r"[0-9a-f]{64}")
_COLOURS: tuple[Colour, ...] = (
    (0, 140, 0),
    (200, 80, 0),
    (0, 0, 210),
    (160, 0, 160),
    (130, 130, 0),
    (0, 110, 220),
)


class Detection(msgspec.Struct, frozen=True, array_like=True):
    """An object in a window: score in ten-thousandths, box in hundredths of a pixel."""

    score: Annotated[int, msgspec.Meta(ge=0, le=SCORE_SCALE)]
    kind: Annotated[int, msgspec.Meta(ge=0, le=100_000)]
    left: _Place
    top: _Place
    right: _Place
    bottom: _Place


@dataclass(frozen=True)
class Dnn(WindowDetector[Detection]):
    """Objects that a neural network finds, with class, score and box.

    Takes uint8 of 1 or 3 channels. The network gets RGB from 0 to 1; a gray image is repeated in
    all three channels. The image is searched in windows: squares of `window` pixels, every `stride`
    pixels, each by `cv2.dnn` or ONNX Runtime. In an image smaller than a window, the rest of the
    window is filled with gray (114). Of overlapping boxes of one class only the best is kept
    (non-maximum suppression), in each window and then in the whole image. There, a box that ends
    where its window was cut ranks behind all others, and is also removed if more than `nms` of its
    area lies in a better box. Halo: half a window. Exact for any tiling, between devices with the
    same OpenCV and, if `engine` is `onnx`, the same ONNX Runtime, on which a test network gives the
    same bits.

    The facts::

        {"objects": [{"class": "face", "score": 0.9312, "box": [left, top, width, height]}],
         "left_out": 0}

    Objects are listed best first, with boxes in pixels of the whole image, to a hundredth. The
    findings of a window may take `stride` squared / 4 bytes (about 20 bytes each) and are 1000 at
    most; `left_out` counts the boxes beyond that, those with the lowest scores.

    A tile must be larger than a window, and one of 640 x 640 pixels in colour takes 1.2 MB. Raise
    `wire.max_message_bytes` to 3 MB for it, or use a model for windows up to 416.

    Parameters
    ----------
    model : str
        Name of the ONNX file in the folder of the setting `models`, on each device and on the
        gateway. One-off commands such as `run` look in the working directory, too.
    sha256 : str
        The file's SHA-256, 64 hex digits. A device whose file has another hash refuses the tile.
        Of a model with weights in another file beside it, that of both:
        `cat model.onnx model.onnx.data | sha256sum`.
    engine : {"opencv", "onnx"}
        What runs the network. `onnx` is ONNX Runtime, which runs models that OpenCV cannot: install
        the extra `fogmqtt[onnx]` on the devices and on the gateway.
    window : int
        Side of the model's square input, 16 to 4096 pixels.
    stride : int
        Distance between windows in pixels, from an eighth of `window` to all of it; 0 is half of
        it. Objects of up to `window - stride` pixels lie completely in some window.
    format : {"yolov8", "yolov5", "boxes"}
        Shape of the output: 1 x (4 + classes) x boxes, 1 x boxes x (5 + classes), or 1 x boxes x 6
        with corners, score and class.
    score : float
        The least score, over 0 to 1.
    nms : float
        The largest share of their union that two boxes may have in common, 0 to 1.
    classes : str
        Names of the classes in the model's order, separated by commas; if empty, their numbers.
    """

    name: ClassVar[str] = "dnn"
    part: ClassVar[Any] = TileFindings[Detection]
    # So many boxes are no detection, and each is compared with all others.
    most_per_window: ClassVar[int | None] = 1000
    # Every call needs a model; see `probe`.
    samples: ClassVar[Samples] = ()
    example_call: ClassVar[Mapping[str, Any]] = {"model": "model.onnx", "sha256": "0" * 64}
    exactness: ClassVar[str] = (
        "searched in windows, not in the whole image at once; only between devices with the same "
        "OpenCV or ONNX Runtime, on which a test network gives the same bits"
    )
    probed_variants: ClassVar[Mapping[str, ProbedVariant]] = {
        "onnx": ProbedVariant(("opencv", "onnxruntime"), onnx_runtime.ADVICE)
    }

    model: str = ""
    sha256: str = ""
    engine: Literal["opencv", "onnx"] = "opencv"
    window: int = 640
    stride: int = 0
    format: str = "yolov8"
    score: float = 0.25
    nms: float = 0.45
    classes: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(bool(self.model), "model", "name an ONNX file")
        self._require(16 <= self.window <= _LARGEST, "window", f"expected 16 to {_LARGEST} pixels")
        least = -(-self.window // 8)
        valid = self.stride == 0 or least <= self.stride <= self.window
        self._require(valid, "stride", f"expected {least} to {self.window} pixels, or 0 for half")
        self._require(self.format in FORMS, "format", f"expected {', '.join(FORMS)}")
        self._require(0 < self.score <= 1, "score", "expected over 0 to 1")
        self._require(0 <= self.nms <= 1, "nms", "expected 0 to 1")
        valid = not self.classes or all(self.classes.split(","))
        self._require(valid, "classes", "expected names with commas between them")
        self._require_hash()

    def _require_hash(self) -> None:
        if _HASH.fullmatch(self.sha256):
            return
        try:
            advice = f"the one here is sha256={models.file_digest(self.model)}"
        except OperatorError as problem:
            advice = str(problem)
        raise PipelineError(
            f"dnn: sha256={self.sha256}: expected the 64 hex digits that make sure that all "
            f"devices have the same {self.model}; {advice}"
        )

    def variant(self, spec: Spec) -> str:
        del spec
        return "" if self.engine == "opencv" else self.engine

    @classmethod
    def probe(cls) -> bytes:
        """Return the output of a small network, bit for bit."""
        return cls._probe("opencv")

    @classmethod
    def probe_variant(cls, variant: str) -> bytes:
        """Return the output of the same network by another engine."""
        return cls._probe("onnx" if variant == "onnx" else "opencv")

    @classmethod
    def _probe(cls, engine: Literal["opencv", "onnx"]) -> bytes:
        window = np.indices((_PROBE_SIDE, _PROBE_SIDE, 3)).sum(axis=0) * 37 % 256
        model = str(_PROBE)
        sha256 = models.file_digest(model)
        network = cls(model=model, sha256=sha256, engine=engine, window=_PROBE_SIDE)
        return b"".join(one.tobytes() for one in network._outputs(window.astype(np.uint8)))

    def output(self, spec: Spec) -> Spec:
        """Raises OperatorError also if the model is missing, or has another hash."""
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        self._with_model(models.verify)
        return spec

    def _with_model(self, use: Callable[[str, str], _T]) -> _T:
        try:
            return use(self.model, self.sha256)
        except OperatorError as problem:
            raise OperatorError(f"dnn: {problem}") from None

    def window_layout(self) -> tuple[int, int]:
        return self.window, self.stride or self.window // 2

    def detect(self, pixels: Image) -> Sequence[Detection]:
        """Raises OperatorError if the model is missing, has another hash, or cannot be run."""
        height, width = pixels.shape[:2]
        names = len(self.classes.split(",")) if self.classes else 0
        boxes = parse_output(self.format, self._outputs(pixels), self.score, names)
        limits = [100 * width, 100 * height] * 2
        boxes = Boxes(boxes.places.clip(0, limits), boxes.scores, boxes.classes)
        boxes = boxes.select((boxes.places[:, :2] < boxes.places[:, 2:]).all(axis=1))
        best = boxes.select(suppress_overlaps(boxes, self.nms, self.most_per_window or len(boxes)))
        return [
            Detection(score, kind, *place)
            for score, kind, place in zip(
                best.scores.tolist(), best.classes.tolist(), best.places.tolist(), strict=True
            )
        ]

    def merge(self, found: Sequence[tuple[Rect, Detection]], size: tuple[int, int]) -> Facts:
        rows = [_row(window, one, size) for window, one in found]
        table = np.array(rows, np.int64).reshape(-1, 7)
        boxes = Boxes(table[:, 2:6], table[:, 0], table[:, 1])
        remaining = boxes.select(suppress_overlaps(boxes, self.nms, len(boxes), table[:, 6] > 0))
        remaining = remaining.select(remaining.order())
        names = dict(enumerate(self.classes.split(","))) if self.classes else {}
        lines = zip(
            remaining.scores.tolist(),
            remaining.classes.tolist(),
            remaining.places.tolist(),
            strict=True,
        )
        return {
            "objects": [
                {
                    "class": names.get(kind, str(kind)),
                    "score": score / SCORE_SCALE,
                    "box": _box(place),
                }
                for score, kind, place in lines
            ]
        }

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Draw a frame in the colour of the class around each object, with class and score."""
        for one in reversed(facts["objects"]):
            left, top, width, height = one["box"]
            right, bottom = left + width, top + height
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
            colour = _COLOURS[sum(one["class"].encode()) % len(_COLOURS)]
            frame(picture, corners, f"{one['class']} {one['score']:.2f}", colour)
        return picture

    def _outputs(self, pixels: Image) -> Sequence[Image]:
        """Return the network's outputs for a window."""
        net = self._with_model(partial(models.network, engine=self.engine))
        colour = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
        below, right = (self.window - side for side in colour.shape[:2])
        full = cv2.copyMakeBorder(colour, 0, below, 0, right, cv2.BORDER_CONSTANT, value=_FILL)
        blob = cv2.dnn.blobFromImage(full, 1 / 255, swapRB=True)
        return self._run_onnx(net, blob) if self.engine == "onnx" else self._run_opencv(net, blob)

    def _run_opencv(self, net: Any, blob: Image) -> Sequence[Image]:
        try:
            net.setInput(blob)
            outputs: Sequence[Image] = net.forward(net.getUnconnectedOutLayersNames())
        except cv2.error as problem:
            raise OperatorError(
                f"dnn: model {self.model}: OpenCV {cv2.__version__} cannot run it on "
                f"window={self.window}: {models.reason(problem)}; engine=onnx may"
            ) from None
        return outputs

    def _run_onnx(self, run: onnx_runtime.Run, blob: Image) -> Sequence[Image]:
        try:
            return run(blob)
        except OperatorError as problem:
            raise OperatorError(
                f"dnn: model {self.model}: window={self.window}: {problem}"
            ) from None


def _row(window: Rect, one: Detection, size: tuple[int, int]) -> tuple[int, ...]:
    """Return score, class, the box in the whole image, and 1 if it may be part of an object."""
    near = 100 * max(window.height, window.width) // _NEAR_FRACTION
    piece = (
        (window.top > 0 and one.top < near)
        or (window.left > 0 and one.left < near)
        or (window.bottom < size[0] and one.bottom > 100 * window.height - near)
        or (window.right < size[1] and one.right > 100 * window.width - near)
    )
    x, y = 100 * window.left, 100 * window.top
    places = one.left + x, one.top + y, one.right + x, one.bottom + y
    return (one.score, one.kind, *places, int(piece))


def _box(place: Sequence[int]) -> list[float]:
    left, top, right, bottom = place
    return [left / 100, top / 100, (right - left) / 100, (bottom - top) / 100]
