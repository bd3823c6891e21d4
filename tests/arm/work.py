"""What both processors do, to compare: the conformance run, digests of many results, the law.

    python -m tests.arm.work examine | sweep | law PART PARTS

It writes JSON to stdout, and needs no package that fogmqtt does not need.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import xxhash

import fogmqtt
from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.conformance.runner import ConformanceRunner
from fogmqtt.core.geometry import Grid, Size
from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2, one_thread
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.api.base import Operator, StageOutput
from fogmqtt.operators.api.testing import check_tiled_equals_whole
from tests.conformance import complete_report

#: Widths around those of vectors, in pixels: shorter rows, longest remainders, none.
WIDTHS = (1, 7, 15, 16, 17, 31, 33, 47, 63, 64, 65, 79, 95, 127, 129, 191, 255)
_HEIGHT = 37
#: Parameters beside the samples of an operator, for code that only some sizes run.
_MORE: dict[str, list[dict[str, object]]] = {
    "gaussian": [{"ksize": ksize} for ksize in range(9, 28, 2)],
    "unsharp": [{"ksize": ksize} for ksize in (7, 15, 21, 27)],
    "median": [{"ksize": ksize} for ksize in (7, 11, 15)],
    "clahe": [{"columns": 3, "rows": 5, "clip": 9.0}],
}
#: Tiles of 100 pixels show alignment, tiles smaller than a kernel other code for short rows.
_PLANS = (Grid(2, 3), Size(100, 100), Size(11, 70))
_LAW_SIZE = (61, 201)
#: Slow ones need no more than this to show that they are cut right.
_SLOW_SIZE = (50, 140)
_SLOW = {"bilateral", "denoise"}


def examine() -> ConformanceReport:
    """Return the conformance report of this Python's processor."""
    return complete_report(ConformanceRunner, timeout_s=300)


def sweep() -> dict[str, str]:
    """Return digests of whole images by their abilities, pipeline and width, 8 bits."""
    found = {}
    for operator in operators():
        for image in _images(_HEIGHT, max(WIDTHS), "uint8"):
            for width in WIDTHS:
                part = np.ascontiguousarray(image[:, :width])
                if not _takes(operator, part):
                    break
                abilities = pipeline.required_abilities((operator,), Spec.of(part))
                key = f"{' '.join(sorted(abilities))}: {operator}, {Spec.of(part)}"
                found[key] = _digest(pipeline.run_whole((operator,), part, part))
    return found


def law(part: int, parts: int) -> tuple[int, list[str]]:
    """Return how often tiled was compared with whole, and the cases in which they differ."""
    count, failures = 0, []
    for operator in list(operators())[part::parts]:
        for dtype in ("uint8", "uint16", "float32"):
            for image in _images(*(_SLOW_SIZE if operator.name in _SLOW else _LAW_SIZE), dtype):
                if not _takes(operator, image):
                    continue
                count += len(_PLANS)
                try:
                    check_tiled_equals_whole(operator, image, _PLANS)
                except OperatorError as problem:
                    failures.append(str(problem))
    return count, failures


def operators() -> Iterator[Operator]:
    """Yield the tiled operators with the parameters of their samples and some more."""
    for name in registry.names():
        kind = registry.load(name)
        if kind.tiled and not kind.has_memory:
            for params in (*kind.samples, *_MORE.get(name, [])):
                yield registry.build(name, params)


def _takes(operator: Operator, image: Image) -> bool:
    try:
        operator.output(Spec.of(image))
    except OperatorError:
        return False
    return True


@cache
def _photo() -> Image:
    return cv2.imread(str(Path(fogmqtt.__file__).parent / "cli" / "photo.png"))


def _images(height: int, width: int, dtype: str) -> Iterator[Image]:
    """Yield a photograph in gray and in colour, with noise in its lower half."""
    noise = np.random.Generator(np.random.PCG64(7)).integers(0, 256, (height, width, 3), np.uint8)
    colour = _photo()[60 : 60 + height, 90 : 90 + width].copy()
    colour[height // 2 :] = noise[height // 2 :]
    for image in (np.ascontiguousarray(colour[..., 1]), colour):
        match dtype:
            case "uint8":
                yield image
            case "uint16":
                yield image.astype(np.uint16) * 257
            case _:
                yield image.astype(np.float32) / np.float32(255)


def _digest(result: StageOutput) -> str:
    if isinstance(result, dict):
        return xxhash.xxh3_64_hexdigest(msgspec.json.encode(result, order="sorted"))
    return xxhash.xxh3_64_hexdigest(f"{Spec.of(result)}".encode() + result.tobytes())


def main(arguments: list[str]) -> None:
    one_thread()
    match arguments:
        case ["examine"]:
            found: object = examine()
        case ["sweep"]:
            found = sweep()
        case ["law", part, parts]:
            found = law(int(part), int(parts))
        case _:
            sys.exit(f"usage: {__doc__}")
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main(sys.argv[1:])
