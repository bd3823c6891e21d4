"""Which operators there are, by name. Imports neither numpy nor OpenCV until one is loaded.

Another package adds operators by entry points of the group `fogmqtt.operators`:

    [project.entry-points."fogmqtt.operators"]
    sharpen = "my_package.sharpen:Sharpen"

The name left of the sign is the class's `name`. A configuration adds those of single modules and
files, its `plugins`. Built-in names cannot be taken. See docs/plugins.md.
"""

from __future__ import annotations

import contextlib
import difflib
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
from fogmqtt.errors import PipelineError
from fogmqtt.operators.api.plugins import Origin, PlugIns

if TYPE_CHECKING:
    from fogmqtt.operators.api.base import Operator

_BUILT_IN: Mapping[str, str] = {
    "adaptive": "fogmqtt.operators.segmentation.thresholds:Adaptive",
    "adjust": "fogmqtt.operators.colour.tone:Adjust",
    "autocanny": "fogmqtt.operators.edges.auto_canny:AutoCanny",
    "autolevels": "fogmqtt.operators.colour.levels:AutoLevels",
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
    "laplacian": "fogmqtt.operators.edges.gradients:Laplacian",
    "lines": "fogmqtt.operators.detection.lines:Lines",
    "median": "fogmqtt.operators.filters.smoothing:Median",
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

_OURS = "fogmqtt"

_others = PlugIns(_BUILT_IN)


def plug_in(modules: Iterable[str], fatal: Mapping[str, str] = MappingProxyType({})) -> None:
    """From now on use these modules' operators, and no earlier ones'.

    Names to import, or absolute paths of .py files; without those, and without the packages'
    entry points, that are `fatal` to a process which imports them, each with how. Imports nothing
    yet: `load` of an unknown name, `import_plug_ins` and `problems` do.
    """
    global _others
    _others = PlugIns(_BUILT_IN, modules, fatal)
    load.cache_clear()


def plug_ins() -> tuple[str, ...]:
    """The modules that are used, for a child process to be given them."""
    return _others.modules


def has_plug_ins() -> bool:
    """Whether anything is plugged in, by a configuration or a package."""
    return bool(_others.given or _others.entries)


def import_all(before: Callable[[str], object]) -> None:
    """Import all that is plugged in, of packages too; `before` is called with each.

    A module is told by its name or path, an operator of a package by its entry point's value.
    What is wrong with one is no exception.
    """
    import_plug_ins(before)
    for name, entry in _others.entries.items():
        before(entry.value)
        with contextlib.suppress(PipelineError):
            load(name)


def import_plug_ins(before: Callable[[str], object] = str) -> None:
    """Import the modules that were plugged in, once; `before` is called with each.

    What is wrong with them is in `problems`.
    """
    _others.import_modules(before)


def problems() -> tuple[str, ...]:
    """Which plug-ins are skipped and why, a sentence each; imports the modules.

    Packages are not imported: what is wrong with the operator of one, `load` raises.
    """
    return _others.problems()


def names() -> tuple[str, ...]:
    """All operators in alphabetical order: built in, and plugged in by installed packages.

    Nothing is imported for it, so a name may still fail in `load`, and operators of modules are
    among them only after `import_plug_ins`.
    """
    return tuple(sorted((*_BUILT_IN, *_others.names())))


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
    found = _others.find(name)
    if found is None:
        skipped = "".join(f"; {problem}" for problem in problems())
        raise PipelineError(f"no operator is called {name!r}; {nearest(name, names())}{skipped}")
    return found


def origin(name: str) -> Origin:
    """What an operator came with, and its version. Raises like `load`."""
    return Origin(_OURS, __version__) if name in _BUILT_IN else _others.origin(load(name))


def is_ours(name: str) -> bool:
    """Whether an operator is of this package, and no plug-in."""
    return name in _BUILT_IN


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
    from fogmqtt.operators.api.base import is_learned

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
