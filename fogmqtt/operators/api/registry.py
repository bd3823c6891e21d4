"""The operators, by name. Imports neither numpy nor OpenCV until an operator is loaded.

Another package adds operators by entry points of the group `fogmqtt.operators`:

    [project.entry-points."fogmqtt.operators"]
    sharpen = "my_package.sharpen:Sharpen"

The name left of the equals sign is the class's `name`. A configuration adds the operators of
modules and files by its setting `plugins`. Names of built-in operators cannot be reused. See
docs/plugins.md.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from fogmqtt import __version__
from fogmqtt.errors import PipelineError, missing_package
from fogmqtt.operators.api.plugins import Origin, PlugIns

if TYPE_CHECKING:
    from fogmqtt.operators.api.base import Operator

_BUILT_IN: Mapping[str, str] = {
    "adaptive": "fogmqtt.operators.segmentation.thresholds:Adaptive",
    "adjust": "fogmqtt.operators.colour.tone:Adjust",
    "autocanny": "fogmqtt.operators.edges.auto_canny:AutoCanny",
    "autolevels": "fogmqtt.operators.colour.levels:AutoLevels",
    "average": "fogmqtt.operators.memory.averages:Average",
    "background": "fogmqtt.operators.memory.averages:Background",
    "bilateral": "fogmqtt.operators.filters.denoise:Bilateral",
    "blackhat": "fogmqtt.operators.filters.morphology:BlackHat",
    "blur": "fogmqtt.operators.filters.smoothing:Blur",
    "canny": "fogmqtt.operators.edges.canny:Canny",
    "channel": "fogmqtt.operators.colour.spaces:Channel",
    "clahe": "fogmqtt.operators.colour.clahe:Clahe",
    "close": "fogmqtt.operators.filters.morphology:Close",
    "codes": "fogmqtt.operators.detection.codes:Codes",
    "components": "fogmqtt.operators.segmentation.components:Components",
    "contours": "fogmqtt.operators.segmentation.contours:Contours",
    "crop": "fogmqtt.operators.geometric:Crop",
    "denoise": "fogmqtt.operators.filters.denoise:Denoise",
    "diff": "fogmqtt.operators.memory.windows:Diff",
    "dilate": "fogmqtt.operators.filters.morphology:Dilate",
    "dnn": "fogmqtt.operators.detection.dnn:Dnn",
    "equalize": "fogmqtt.operators.colour.levels:Equalize",
    "erode": "fogmqtt.operators.filters.morphology:Erode",
    "flip": "fogmqtt.operators.geometric:Flip",
    "gamma": "fogmqtt.operators.colour.tone:Gamma",
    "gaussian": "fogmqtt.operators.filters.smoothing:Gaussian",
    "gradient": "fogmqtt.operators.filters.morphology:Gradient",
    "gray": "fogmqtt.operators.colour.spaces:Gray",
    "histogram": "fogmqtt.operators.histogram:Histogram",
    "hsv": "fogmqtt.operators.colour.spaces:Hsv",
    "invert": "fogmqtt.operators.colour.tone:Invert",
    "kernel": "fogmqtt.operators.filters.kernels:Kernel",
    "lab": "fogmqtt.operators.colour.spaces:Lab",
    "labels": "fogmqtt.operators.segmentation.labels:Labels",
    "laplacian": "fogmqtt.operators.edges.gradients:Laplacian",
    "lines": "fogmqtt.operators.detection.lines:Lines",
    "median": "fogmqtt.operators.filters.smoothing:Median",
    "median_of": "fogmqtt.operators.memory.windows:MedianOf",
    "mog2": "fogmqtt.operators.memory.mog2:Mog2",
    "normalize": "fogmqtt.operators.colour.levels:Normalize",
    "open": "fogmqtt.operators.filters.morphology:Open",
    "otsu": "fogmqtt.operators.segmentation.thresholds:Otsu",
    "overlay": "fogmqtt.operators.overlay:Overlay",
    "prewitt": "fogmqtt.operators.edges.gradients:Prewitt",
    "resize": "fogmqtt.operators.geometric:Resize",
    "rotate": "fogmqtt.operators.geometric:Rotate",
    "scharr": "fogmqtt.operators.edges.gradients:Scharr",
    "sharpen": "fogmqtt.operators.filters.kernels:Sharpen",
    "sobel": "fogmqtt.operators.edges.gradients:Sobel",
    "stats": "fogmqtt.operators.stats:Stats",
    "threshold": "fogmqtt.operators.segmentation.thresholds:Threshold",
    "to8bit": "fogmqtt.operators.colour.tone:To8Bit",
    "tofloat": "fogmqtt.operators.colour.tone:ToFloat",
    "tophat": "fogmqtt.operators.filters.morphology:TopHat",
    "triangle": "fogmqtt.operators.segmentation.thresholds:Triangle",
    "unsharp": "fogmqtt.operators.filters.kernels:Unsharp",
    "whitebalance": "fogmqtt.operators.colour.white_balance:WhiteBalance",
}

#: Names that users look for → why there is no such operator.
_REFUSED: Mapping[str, str] = {
    "knn": (
        "OpenCV's KNN background draws random numbers for each image, so tiles would differ from "
        "the whole; use 'mog2', or 'background', which is the same on every device"
    ),
}

_PACKAGE = "fogmqtt"

_plug_ins = PlugIns(_BUILT_IN)


def plug_in(modules: Iterable[str], fatal: Mapping[str, str] = MappingProxyType({})) -> None:
    """Use the operators of these modules from now on, and not those of earlier calls.

    `modules` are names to import, or absolute paths of .py files. `fatal` maps modules and entry
    points whose import ends or hangs a process to how the process ended: they are skipped.

    Imports nothing. The first `load` of an unknown name, `import_plug_ins` or `problems` imports
    the modules.
    """
    global _plug_ins
    _plug_ins = PlugIns(_BUILT_IN, modules, fatal)
    load.cache_clear()


def refusal(name: str) -> str:
    """Return why there is no such operator, if users look for it; empty if nothing is known."""
    return f"there is no operator {name!r}: {_REFUSED[name]}" if name in _REFUSED else ""


def plug_ins() -> tuple[str, ...]:
    """Return the modules in use, so that a child process can use them too."""
    return _plug_ins.modules


def has_plug_ins() -> bool:
    """Return whether a configuration or an installed package adds any operator."""
    return bool(_plug_ins.configured or _plug_ins.entries)


def import_all(before: Callable[[str], object]) -> None:
    """Import all plug-ins, those of packages too; call `before` before each import.

    `before` gets a module's name or path, or the value of a package's entry point. A plug-in that
    cannot be imported raises no exception.
    """
    import_plug_ins(before)
    for name, entry in _plug_ins.entries.items():
        before(entry.value)
        with contextlib.suppress(PipelineError):
            load(name)


def import_plug_ins(before: Callable[[str], object] = str) -> None:
    """Import the modules in use, once; call `before` with each before its import.

    A module that cannot be imported raises no exception; `problems` then names it.
    """
    _plug_ins.import_modules(before)


def problems() -> tuple[str, ...]:
    """Return one sentence for each plug-in that is skipped. Imports the modules.

    Packages are not imported: `load` raises if the operator of a package cannot be used.
    """
    return _plug_ins.problems()


def names() -> tuple[str, ...]:
    """Return the names of all operators in alphabetical order.

    Imports nothing: `load` may still fail for a name of a package, and the operators of modules
    are included only after `import_plug_ins`.
    """
    return tuple(sorted((*_BUILT_IN, *_plug_ins.names())))


@cache
def load(name: str) -> type[Operator]:
    """Return the operator's class.

    Raises PipelineError for an unknown name, with the most similar known one, for an operator whose
    package is missing here, and for a plug-in that cannot be imported or is not an operator.
    """
    if name in _BUILT_IN:
        return _load_built_in(name)
    found = _plug_ins.find(name)
    if found is None and (why := refusal(name)):
        raise PipelineError(why)
    if found is None:
        skipped = "".join(f"; {problem}" for problem in problems())
        raise PipelineError(f"no operator is called {name!r}; {suggestion(name, names())}{skipped}")
    return found


def _load_built_in(name: str) -> type[Operator]:
    module, _, attribute = _BUILT_IN[name].partition(":")
    try:
        built_in: type[Operator] = getattr(importlib.import_module(module), attribute)
    except ImportError as problem:
        raise PipelineError(
            f"the operator {name} lacks a package here: {missing_package(problem) or problem}"
        ) from problem
    return built_in


def origin(name: str) -> Origin:
    """Return the package that an operator comes with, and its version. Raises like `load`."""
    return Origin(_PACKAGE, __version__) if name in _BUILT_IN else _plug_ins.origin(load(name))


def is_built_in(name: str) -> bool:
    """Return whether an operator comes with fogmqtt and is not a plug-in."""
    return name in _BUILT_IN


def build(name: str, params: Mapping[str, Any]) -> Operator:
    """Return the operator with these parameters. Values may be text, as in a written pipeline.

    Raises PipelineError for an unknown operator or parameter, with the most similar known name,
    and for a value of a wrong type or out of range.
    """
    operator = load(name)
    return operator(**{key: convert_value(operator, key, value) for key, value in params.items()})


def parameters(operator: type[Operator]) -> Mapping[str, Any]:
    """Return name → type of the parameters that can be written, in the order of definition."""
    return _parameter_types(_hashable(operator))


def _hashable(operator: type[Operator]) -> Any:
    return operator  # mypy takes the class for unhashable


@cache
def _parameter_types(operator: type[Any]) -> Mapping[str, Any]:
    from fogmqtt.operators.api.base import is_learned

    hidden = {field.name for field in fields(operator) if is_learned(field)}
    types = _field_types(_hashable(operator))
    return {key: kind for key, kind in types.items() if key not in hidden}


@cache
def _field_types(operator: type[Any]) -> Mapping[str, Any]:
    types = typing.get_type_hints(operator)
    return {field.name: types[field.name] for field in fields(operator) if field.init}


def parse_value(operator: type[Operator], key: str, text: str) -> Any:
    """Return the value that `text` gives to the parameter `key`. Raises like `convert_value`.

    Learned fields cannot be written: they count as unknown.
    """
    if key not in parameters(operator):
        raise _unknown_parameter(operator, key)
    return convert_value(operator, key, text)


def convert_value(operator: type[Operator], key: str, value: object) -> Any:
    """Return `value` converted to the type of the operator's field `key`, learned ones too.

    Raises PipelineError if there is no such field, or the value does not fit its type.
    """
    known = _field_types(_hashable(operator))
    if key not in known:
        raise _unknown_parameter(operator, key)
    try:
        converted = msgspec.convert(value, known[key], strict=False)
    except msgspec.ValidationError as problem:
        raise PipelineError(
            f"{operator.name}: {key}={value}: {_lower_first(str(problem))}"
        ) from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise PipelineError(f"{operator.name}: {key}={value}: expected a finite number")
    return converted


def _unknown_parameter(operator: type[Operator], key: str) -> PipelineError:
    known = parameters(operator)
    hint = suggestion(key, known) if known else "it has no parameters"
    return PipelineError(f"{operator.name} has no parameter {key!r}; {hint}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the hint for a misspelt word: the most similar known word, or all of them."""
    import difflib  # of use only for mistakes

    known = tuple(known)
    close = difflib.get_close_matches(word.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
