"""Runs operators on test images, to find out how this machine rounds, and how fast it is.

Builds of OpenCV run different code. An operator's samples cover each code path that it uses, so
two machines whose results agree for the samples are assumed to agree for every image.
"""

from __future__ import annotations

import platform
import statistics
import timeit
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

import xxhash

from fogmqtt.conformance.report import OperatorReport, problem_text
from fogmqtt.conformance.test_images import LARGE, SMALL, reference_image
from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.measuring import Part, encode_part
from fogmqtt.operators.api.pipeline import for_tile, run_tile
from fogmqtt.operators.api.results import TileResult

#: Every dtype that a tile can have.
DTYPES: Final = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")
_CHANNELS: Final = (1, 3)
#: Times that an operator is run to measure its speed; the median counts.
_RUNS: Final = 3


def check_operator(name: str, memory_mb: int = 0) -> OperatorReport:
    """Return one operator's fingerprints and speed, or the problem that prevents the check.

    Never raises for what an operator does. `memory_mb` is this process's limit in megabytes; it
    is named in the problem of an operator that needs more.
    """
    try:
        operator = registry.load(name)
        origin = registry.origin(name)
        found = OperatorReport(
            name, origin.package, origin.version, _fingerprints(operator), _ns_per_pixel(operator)
        )
    except MemoryError:
        pass  # the operator's memory is free below, where the problem's text needs some
    except Exception as problem:  # noqa: BLE001  # plug-ins may raise anything
        return OperatorReport(name, problem=problem_text(name, problem))
    else:
        return found
    return OperatorReport(name, problem=f"{name}: needs more than {memory_mb} MB for a small image")


def versions() -> dict[str, str]:
    """Return the versions and processor features that decide how pixels are rounded here."""
    import numpy as np

    features = cv2.getCPUFeaturesLine().split()
    # A star marks a feature that is chosen at run time, a question mark a missing or disabled one.
    cpu = " ".join(feature.lstrip("*") for feature in features if not feature.endswith("?"))
    return {
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": cpu,
    }


def _fingerprints(operator: type[Operator]) -> dict[str, str]:
    if not operator.tiled:
        return {}  # it runs on the gateway only
    samples = _sample_operators(operator)
    if not samples:
        built = xxhash.xxh3_64_hexdigest("/".join(versions().values()).encode())
        return dict.fromkeys(_possible_abilities(operator), built)
    hashes: dict[str, xxhash.xxh3_64] = {}
    for sample, spec in _cases(samples):
        one = hashes.setdefault(sample.ability(spec), xxhash.xxh3_64())
        one.update(_result_bytes(sample, spec))
    return {ability: one.hexdigest() for ability, one in hashes.items()}


def _possible_abilities(operator: type[Operator]) -> Iterator[str]:
    """Yield abilities for the dtypes that it accepts; for all dtypes if that is not known."""
    default = _default_instance(operator)
    for dtype in DTYPES:
        specs = [Spec(*SMALL, channels, dtype) for channels in _CHANNELS]
        if default is None:
            yield f"{operator.name}/{dtype}"
        elif any(_accepts(default, spec) for spec in specs):
            yield default.ability(specs[0])


def _sample_operators(operator: type[Operator]) -> list[Operator]:
    if operator.samples is not Operator.samples:
        return [registry.build(operator.name, params) for params in operator.samples]
    default = _default_instance(operator)
    return [default] if default else []


def _default_instance(operator: type[Operator]) -> Operator | None:
    """Return the operator with default parameters, or None if it has required ones."""
    try:
        return registry.build(operator.name, {})
    except (TypeError, PipelineError):
        return None


def _cases(samples: list[Operator]) -> Iterator[tuple[Operator, Spec]]:
    """Yield each sample with the specs of the test images that it accepts."""
    for sample in samples:
        for dtype in DTYPES:
            for channels in _CHANNELS:
                spec = Spec(*SMALL, channels, dtype)
                if not _accepts(sample, spec):
                    continue
                # Float arithmetic on integers rounds alike in nearly all pixels: use more pixels.
                rare = sample.alignment(spec) > 1 and not dtype.startswith("float")
                yield sample, Spec(*LARGE, channels, dtype) if rare else spec


def _accepts(operator: Operator, spec: Spec) -> bool:
    try:
        operator.output(spec)
    except OperatorError:
        return False
    return True


def _result_bytes(operator: Operator, spec: Spec) -> bytes:
    try:
        result = _tile_run(operator, spec)()
    except MemoryError:
        raise  # a lack of memory says nothing about rounding
    except (Exception, SystemExit) as problem:  # noqa: BLE001  # equal errors are equal results
        if isinstance(problem, cv2.error) and problem.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        return type(problem).__name__.encode()
    if isinstance(result, Part):
        return encode_part(result)
    return f"{result.shape} {result.dtype.str} ".encode() + result.tobytes()


def _tile_run(operator: Operator, spec: Spec) -> Callable[[], TileResult]:
    """Return a function that does a device's work on a tile with a seam at its right and bottom."""
    image = _cached_image(spec)
    operators = for_tile((operator.prepare(image, image),), Rect(0, 0, *spec.size), spec.size)
    inset = min(operator.halo, min(spec.size) // 4)
    core = Rect(0, 0, spec.height - inset, spec.width - inset)
    return lambda: run_tile(operators, image.copy(), core, Seams(bottom=True, right=True))


@cache
def _cached_image(spec: Spec) -> Image:
    return reference_image(spec)


def _ns_per_pixel(operator: type[Operator]) -> float | None:
    """Return nanoseconds per pixel, with default parameters or else those of the first sample."""
    one = _default_instance(operator) or next(iter(_sample_operators(operator)), None)
    if one is None or not operator.tiled:
        return None
    specs = (Spec(*SMALL, channels) for channels in _CHANNELS)
    spec = next((spec for spec in specs if _accepts(one, spec)), None)
    if spec is None:
        return None
    try:
        seconds = statistics.median(timeit.repeat(_tile_run(one, spec), number=1, repeat=_RUNS))
    except (Exception, SystemExit):  # noqa: BLE001  # its tiles fail with a message
        return None
    return round(seconds * 1e9 / (spec.height * spec.width), 3)
