"""Which operators there are, by name. Imports neither numpy nor OpenCV until one is loaded.

Another package adds operators by entry points of the group `fogmqtt.operators`:

    [project.entry-points."fogmqtt.operators"]
    sharpen = "my_package.sharpen:Sharpen"

The name left of the sign is the class's `name`. Built-in names cannot be taken.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from fogmqtt.errors import PipelineError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from fogmqtt.operators.base import Operator

log = logging.getLogger(__name__)

GROUP = "fogmqtt.operators"

_BUILT_IN: Mapping[str, str] = {
    "adaptive": "fogmqtt.operators.thresholds:Adaptive",
    "adjust": "fogmqtt.operators.tone:Adjust",
    "autocanny": "fogmqtt.operators.autocanny:AutoCanny",
    "autolevels": "fogmqtt.operators.levels:AutoLevels",
    "bilateral": "fogmqtt.operators.denoise:Bilateral",
    "blackhat": "fogmqtt.operators.morphology:BlackHat",
    "blur": "fogmqtt.operators.filters:Blur",
    "canny": "fogmqtt.operators.canny:Canny",
    "channel": "fogmqtt.operators.colour:Channel",
    "clahe": "fogmqtt.operators.clahe:Clahe",
    "close": "fogmqtt.operators.morphology:Close",
    "codes": "fogmqtt.operators.codes:Codes",
    "crop": "fogmqtt.operators.turns:Crop",
    "denoise": "fogmqtt.operators.denoise:Denoise",
    "dilate": "fogmqtt.operators.morphology:Dilate",
    "dnn": "fogmqtt.operators.dnn:Dnn",
    "equalize": "fogmqtt.operators.levels:Equalize",
    "erode": "fogmqtt.operators.morphology:Erode",
    "flip": "fogmqtt.operators.turns:Flip",
    "gamma": "fogmqtt.operators.tone:Gamma",
    "gaussian": "fogmqtt.operators.filters:Gaussian",
    "gradient": "fogmqtt.operators.morphology:Gradient",
    "gray": "fogmqtt.operators.colour:Gray",
    "hsv": "fogmqtt.operators.colour:Hsv",
    "invert": "fogmqtt.operators.tone:Invert",
    "kernel": "fogmqtt.operators.kernels:Kernel",
    "lab": "fogmqtt.operators.colour:Lab",
    "laplacian": "fogmqtt.operators.edges:Laplacian",
    "median": "fogmqtt.operators.filters:Median",
    "normalize": "fogmqtt.operators.levels:Normalize",
    "open": "fogmqtt.operators.morphology:Open",
    "otsu": "fogmqtt.operators.thresholds:Otsu",
    "overlay": "fogmqtt.operators.overlay:Overlay",
    "prewitt": "fogmqtt.operators.edges:Prewitt",
    "resize": "fogmqtt.operators.resize:Resize",
    "rotate": "fogmqtt.operators.turns:Rotate",
    "scharr": "fogmqtt.operators.edges:Scharr",
    "sharpen": "fogmqtt.operators.kernels:Sharpen",
    "sobel": "fogmqtt.operators.edges:Sobel",
    "threshold": "fogmqtt.operators.thresholds:Threshold",
    "to8bit": "fogmqtt.operators.tone:To8Bit",
    "tofloat": "fogmqtt.operators.tone:ToFloat",
    "tophat": "fogmqtt.operators.morphology:TopHat",
    "triangle": "fogmqtt.operators.thresholds:Triangle",
    "unsharp": "fogmqtt.operators.kernels:Unsharp",
    "whitebalance": "fogmqtt.operators.white_balance:WhiteBalance",
}

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def names() -> tuple[str, ...]:
    """All operators in alphabetical order: built in, and plugged in by installed packages.

    Nothing is imported for it, so a name may still fail in `load`.
    """
    return tuple(sorted((*_BUILT_IN, *_plugged_in())))


@cache
def load(name: str) -> type[Operator]:
    """The operator's class.

    Raises PipelineError for an unknown name, with the nearest known one, and for a plug-in
    that cannot be imported or is no operator.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        built_in: type[Operator] = getattr(importlib.import_module(module), attribute)
        return built_in
    entry = _plugged_in().get(name)
    if entry is None:
        raise PipelineError(f"no operator is called {name!r}; {nearest(name, names())}")
    return _load_plug_in(entry)


def build(name: str, params: Mapping[str, Any]) -> Operator:
    """The operator with these parameters; values may be text, as in a written pipeline.

    Raises PipelineError for an unknown operator or parameter, with the nearest known name, and
    for a value of another type or out of range.
    """
    operator = load(name)
    return operator(**{key: convert(operator, key, value) for key, value in params.items()})


def parameters(operator: type[Operator]) -> Mapping[str, Any]:
    """The types of the parameters that can be written, by name, in the order of definition."""
    return _written(_class(operator))


def _class(operator: type[Operator]) -> Any:
    return operator  # mypy takes a class for unhashable


@cache
def _written(operator: type[Any]) -> Mapping[str, Any]:
    from fogmqtt.operators.base import is_learned

    unwritten = {field.name for field in fields(operator) if is_learned(field)}
    travelling = _travelling(_class(operator))
    return {key: kind for key, kind in travelling.items() if key not in unwritten}


@cache
def _travelling(operator: type[Any]) -> Mapping[str, Any]:
    types = typing.get_type_hints(operator)
    return {field.name: types[field.name] for field in fields(operator) if field.init}


def read(operator: type[Operator], key: str, text: str) -> Any:
    """What `text` says of the parameter `key`, as somebody wrote it. Raises like `convert`."""
    if key not in parameters(operator):
        raise _unknown(operator, key)
    return convert(operator, key, text)


def convert(operator: type[Operator], key: str, value: object) -> Any:
    """`value` as the type of the operator's parameter `key`, written or learned.

    Raises PipelineError if there is no such parameter or no such value of it.
    """
    known = _travelling(_class(operator))
    if key not in known:
        raise _unknown(operator, key)
    try:
        converted = msgspec.convert(value, known[key], strict=False)
    except msgspec.ValidationError as problem:
        raise PipelineError(f"{operator.name}: {key}={value}: {_lower(str(problem))}") from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise PipelineError(f"{operator.name}: {key}={value}: expected a finite number")
    return converted


def _unknown(operator: type[Operator], key: str) -> PipelineError:
    known = parameters(operator)
    hint = nearest(key, known) if known else "it takes none"
    return PipelineError(f"{operator.name} has no parameter {key!r}; {hint}")


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint for a misspelt word: the nearest known one, or all of them."""
    known = tuple(known)
    close = difflib.get_close_matches(word.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


@cache
def _plugged_in() -> Mapping[str, EntryPoint]:
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in _BUILT_IN or entry.name in found:
            log.warning("operator %r of %s is skipped: the name is taken", entry.name, entry.value)
        elif not _NAME.fullmatch(entry.name):
            log.warning("operator %r of %s is skipped: a bad name", entry.name, entry.value)
        else:
            found[entry.name] = entry
    return found


def _load_plug_in(entry: EntryPoint) -> type[Operator]:
    from fogmqtt.operators.base import Operator

    try:
        loaded = entry.load()
    except Exception as problem:  # a module of others raises anything
        log.warning(
            "operator %r cannot be imported from %s", entry.name, entry.value, exc_info=True
        )
        raise PipelineError(
            f"operator {entry.name!r} cannot be imported from {entry.value}: "
            f"{type(problem).__name__}: {problem}"
        ) from problem
    if not (isinstance(loaded, type) and issubclass(loaded, Operator) and is_dataclass(loaded)):
        raise PipelineError(
            f"operator {entry.name!r}: {entry.value} is no dataclass derived from Operator"
        )
    if loaded.name != entry.name:
        raise PipelineError(
            f"operator {entry.name!r}: {entry.value} calls itself {loaded.name!r}; "
            "the entry point and the class must agree"
        )
    return loaded
