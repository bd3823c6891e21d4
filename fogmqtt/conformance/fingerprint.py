"""Runs operators on test images, to find out how this machine rounds, and how fast it is.

Builds of OpenCV run different code. An operator's samples cover each code path that it uses, so
two machines whose results agree for the samples are assumed to agree for every image.
"""

from __future__ import annotations

import platform
import statistics
import timeit
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import metadata
from typing import Final

import numpy as np
import xxhash

from fogmqtt.conformance.report import OperatorReport, problem_text
from fogmqtt.conformance.test_images import LARGE, NARROW, SMALL, reference_image
from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.measuring import Part, encode_part
from fogmqtt.operators.api.memory import FrameMemory
from fogmqtt.operators.api.pipeline import for_tile
from fogmqtt.operators.api.results import TileResult

#: Every dtype that a tile can have.
DTYPES: Final = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")
_CHANNELS: Final = (1, 3)
#: What decides how a machine rounds that is known by nothing else.
_EVERYWHERE: Final = ("opencv", "numpy", "zxing", "machine", "cpu")
#: Times that an operator is run to measure its speed; the median counts.
_RUNS: Final = 3
#: Frames that an operator with memory sees, and pixels that the image moves between two of them.
_FRAMES: Final = 4
_STEP: Final = 3


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
        "zxing": _version("zxing-cpp"),
        "onnxruntime": _version("onnxruntime"),
        "machine": platform.machine(),
        "cpu": cpu,
    }


def _version(package: str) -> str:
    """Return the version of a package of few operators; empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _fingerprints(operator: type[Operator]) -> dict[str, str]:
    if not operator.tiled:
        return {}  # it runs on the gateway only
    samples = _sample_operators(operator)
    if not samples:
        abilities = tuple(_possible_abilities(operator))
        return dict.fromkeys(abilities, _unsampled(operator)) | _variants(operator, abilities)
    hashes: dict[str, xxhash.xxh3_64] = {}
    for sample, spec in _cases(samples):
        one = hashes.setdefault(sample.ability(spec), xxhash.xxh3_64())
        one.update(_result_bytes(sample, spec))
    return {ability: one.hexdigest() for ability, one in hashes.items()}


def _unsampled(operator: type[Operator]) -> str:
    """Return the hash for an operator without samples: of its probe, or else of this machine."""
    probe = operator.probe()
    return _probed(probe, operator.libraries if probe else _EVERYWHERE)


def _variants(operator: type[Operator], abilities: Iterable[str]) -> dict[str, str]:
    """Return the fingerprints of the variants that need packages of their own, if those are here.

    Whoever lacks a package does not announce the variant: `ProbedVariant.advice` says why.
    """
    found = {}
    for variant, known in operator.probed_variants.items():
        try:
            one = _probed(operator.probe_variant(variant), known.libraries)
        except (OperatorError, MemoryError):
            continue
        found.update({f"{ability}/{variant}": one for ability in abilities})
    return found


def _probed(probe: bytes, libraries: Iterable[str]) -> str:
    known = versions()
    releases = "/".join(known[name] for name in libraries)
    return xxhash.xxh3_64_hexdigest(releases.encode() + probe)


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
                for size in (LARGE if rare else SMALL, *NARROW):
                    yield sample, Spec(*size, channels, dtype)


def _accepts(operator: Operator, spec: Spec) -> bool:
    try:
        operator.output(spec)
    except OperatorError:
        return False
    return True


def _result_bytes(operator: Operator, spec: Spec) -> bytes:
    try:
        results = _tile_run(operator, spec)()
    except MemoryError:
        raise  # a lack of memory says nothing about rounding
    except (Exception, SystemExit) as problem:  # noqa: BLE001  # equal errors are equal results
        if isinstance(problem, cv2.error) and problem.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        return type(problem).__name__.encode()
    return b"".join(map(_as_bytes, results))


def _as_bytes(result: TileResult) -> bytes:
    if isinstance(result, Part):
        return encode_part(result)
    return f"{result.shape} {result.dtype.str} ".encode() + result.tobytes()


def _tile_run(operator: Operator, spec: Spec) -> Callable[[], list[TileResult]]:
    """Return a function that does a device's work on a tile with a seam at its right and bottom.

    An operator with memory does several frames, in which the image moves.
    """
    image = _cached_image(spec)
    operators = for_tile((operator.prepare(image, image),), Rect(0, 0, *spec.size), spec.size)
    inset = min(operator.halo, min(spec.size) // 4)
    core = Rect(0, 0, spec.height - inset, spec.width - inset)
    frames = [np.roll(image, _STEP * count, axis=1) for count in range(_frames(operator))]

    def run() -> list[TileResult]:
        memory, seams = FrameMemory(), Seams(bottom=True, right=True)
        return [
            memory.run_tile(operators, frame.copy(), core, seams, count)
            for count, frame in enumerate(frames)
        ]

    return run


def _frames(operator: Operator) -> int:
    return _FRAMES if operator.has_memory else 1


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
    return round(seconds * 1e9 / (spec.height * spec.width * _frames(one)), 3)
