"""Running operators on pictures of our own, to see how this machine rounds, and how fast it is.

Builds of OpenCV differ in the code that they run, and an operator's samples go through all of it:
two machines whose results agree for these are taken to agree for every image.
"""

from __future__ import annotations

import platform
import statistics
import timeit
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

import xxhash

from fogmqtt.conformance.report import Examined, problem_with
from fogmqtt.conformance.test_images import LARGE, SMALL, reference_image
from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.measuring import Part, encode_part
from fogmqtt.operators.api.pipeline import placed, run_tile
from fogmqtt.operators.api.results import Given

#: Everything that travels.
DTYPES: Final = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")
_CHANNELS: Final = (1, 3)
_RUNS: Final = 3


def examine(name: str, memory_mb: int = 0) -> Examined:
    """What there is to know of one operator; never raises for what an operator does.

    `memory_mb` is what it may take here, for the sentence about one that takes more.
    """
    try:
        operator = registry.load(name)
        origin = registry.origin(name)
        found = Examined(
            name, origin.package, origin.version, _fingerprints(operator), _rate(operator)
        )
    except MemoryError:
        pass  # what it took is free below, where there must be room for a sentence
    except Exception as problem:  # noqa: BLE001  # operators of others raise anything
        return Examined(name, problem=problem_with(name, problem))
    else:
        return found
    return Examined(name, problem=f"{name}: takes over {memory_mb} MB for a small picture")


def versions() -> dict[str, str]:
    """What decides how pixels are rounded here."""
    import numpy as np

    features = cv2.getCPUFeaturesLine().split()
    # A star marks what is chosen at run time, a question mark what is not there or disabled.
    cpu = " ".join(feature.lstrip("*") for feature in features if not feature.endswith("?"))
    return {
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": cpu,
    }


def _fingerprints(operator: type[Operator]) -> dict[str, str]:
    if not operator.tiled:
        return {}  # no device ever does it
    samples = _samples(operator)
    if not samples:
        built = xxhash.xxh3_64_hexdigest("/".join(versions().values()).encode())
        return dict.fromkeys(_conceivable(operator), built)
    hashes: dict[str, xxhash.xxh3_64] = {}
    for sample, spec in _trials(samples):
        one = hashes.setdefault(sample.ability(spec), xxhash.xxh3_64())
        one.update(_outcome(sample, spec))
    return {ability: one.hexdigest() for ability, one in hashes.items()}


def _conceivable(operator: type[Operator]) -> Iterator[str]:
    """Abilities for the dtypes that it takes; where nobody can tell, for all."""
    default = _default(operator)
    for dtype in DTYPES:
        specs = [Spec(*SMALL, channels, dtype) for channels in _CHANNELS]
        if default is None:
            yield f"{operator.name}/{dtype}"
        elif any(_takes(default, spec) for spec in specs):
            yield default.ability(specs[0])


def _samples(operator: type[Operator]) -> list[Operator]:
    if operator.samples is not Operator.samples:
        return [registry.build(operator.name, params) for params in operator.samples]
    default = _default(operator)
    return [default] if default else []


def _default(operator: type[Operator]) -> Operator | None:
    """With all parameters at their defaults; None where one must be given."""
    try:
        return registry.build(operator.name, {})
    except (TypeError, PipelineError):
        return None


def _trials(samples: list[Operator]) -> Iterator[tuple[Operator, Spec]]:
    """Each sample with the images that it takes."""
    for sample in samples:
        for dtype in DTYPES:
            for channels in _CHANNELS:
                spec = Spec(*SMALL, channels, dtype)
                if not _takes(sample, spec):
                    continue
                # Float arithmetic on integers rounds to the same value nearly everywhere.
                rare = sample.alignment(spec) > 1 and not dtype.startswith("float")
                yield sample, Spec(*LARGE, channels, dtype) if rare else spec


def _takes(operator: Operator, spec: Spec) -> bool:
    try:
        operator.output(spec)
    except OperatorError:
        return False
    return True


def _outcome(operator: Operator, spec: Spec) -> bytes:
    try:
        given = _work(operator, spec)()
    except MemoryError:
        raise  # that says nothing of rounding
    except (Exception, SystemExit) as problem:  # noqa: BLE001  # alike is no difference
        if isinstance(problem, cv2.error) and problem.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        return type(problem).__name__.encode()
    if isinstance(given, Part):
        return encode_part(given)
    return f"{given.shape} {given.dtype.str} ".encode() + given.tobytes()


def _work(operator: Operator, spec: Spec) -> Callable[[], Given]:
    """A device's part, on our picture as a tile whose right and lower sides are seams."""
    image = _picture(spec)
    operators = placed((operator.prepare(image, image),), Rect(0, 0, *spec.size), spec.size)
    inset = min(operator.halo, min(spec.size) // 4)
    core = Rect(0, 0, spec.height - inset, spec.width - inset)
    return lambda: run_tile(operators, image.copy(), core, Seams(bottom=True, right=True))


@cache
def _picture(spec: Spec) -> Image:
    return reference_image(spec)


def _rate(operator: type[Operator]) -> float | None:
    """Nanoseconds per pixel with the parameters' defaults, or else those of a sample."""
    one = _default(operator) or next(iter(_samples(operator)), None)
    if one is None or not operator.tiled:
        return None
    specs = (Spec(*SMALL, channels) for channels in _CHANNELS)
    spec = next((spec for spec in specs if _takes(one, spec)), None)
    if spec is None:
        return None
    try:
        seconds = statistics.median(timeit.repeat(_work(one, spec), number=1, repeat=_RUNS))
    except (Exception, SystemExit):  # noqa: BLE001  # its tiles will fail, in words
        return None
    return round(seconds * 1e9 / (spec.height * spec.width), 3)
