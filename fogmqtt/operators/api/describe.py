"""Descriptions of operators, for people and programs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args, get_origin

from fogmqtt.errors import FogError, OperatorError, PipelineError
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.memory import MemoryOperator

#: Dtypes that are tried → their names in a table. The images are 64 x 64 pixels.
DTYPES = {"uint8": "8", "uint16": "16", "float32": "f32"}
_KINDS = {1: "gray", 3: "colour"}
_PIXELS = 64


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """A parameter that can be written after an operator's name."""

    type: str
    #: None if the parameter is required.
    default: str | None


@dataclass(frozen=True, slots=True)
class OperatorDescription:
    """One operator."""

    name: str
    summary: str
    #: The whole docstring.
    text: str
    parameters: Mapping[str, ParameterDescription]
    #: `gray` and `colour` → the dtypes that it takes with default parameters.
    takes: Mapping[str, tuple[str, ...]]
    #: `exact`, or a sentence on exactness.
    exact: str
    #: Whether it runs on devices; else it runs on the gateway, on the whole image.
    tiled: bool
    measures: bool
    #: How much it remembers of earlier frames; empty if it takes single images.
    memory: str
    #: With default parameters.
    halo: int | None
    align: int
    #: The package that it comes with, and the package's version.
    package: str
    version: str
    #: A pipeline that works.
    example: str


@dataclass(frozen=True, slots=True)
class OperatorList:
    """All operators, and the problems of those that are skipped."""

    operators: tuple[OperatorDescription, ...]
    problems: tuple[str, ...]


def describe_all() -> OperatorList:
    """Return all operators that this process can use. Imports all of them."""
    problems = list(registry.problems())
    described = []
    for name in registry.names():
        try:
            described.append(describe(name))
        except PipelineError as problem:
            problems.append(str(problem))
    return OperatorList(tuple(described), tuple(problems))


def describe(name: str) -> OperatorDescription:
    """Return the description of one operator. Raises PipelineError like `registry.load`."""
    operator = registry.load(name)
    text = inspect.getdoc(operator) or ""
    default = _default_instance(operator)
    takes = _takes(default) if default else {}
    origin = registry.origin(name)
    return OperatorDescription(
        name=name,
        summary=" ".join(text.partition("\n\n")[0].split()),
        text=text,
        parameters=dict(_parameters(operator)),
        takes=takes,
        exact=_exactness(operator),
        tiled=operator.tiled,
        measures=operator.measures,
        memory=_memory(default),
        halo=default.halo if default else None,
        align=operator.align,
        package=origin.package,
        version=origin.version,
        example=_example(operator, default, takes),
    )


def format_images(takes: Mapping[str, tuple[str, ...]]) -> str:
    """Return the accepted images: `8 16 f32` for gray and colour, `gray 8` for gray only."""
    if not takes:
        return "see its help"
    short = {kind: " ".join(DTYPES[one] for one in dtypes) for kind, dtypes in takes.items()}
    if len(short) == len(_KINDS) and len(set(short.values())) == 1:
        return short["gray"]
    return ", ".join(f"{kind} {dtypes}" for kind, dtypes in short.items())


def format_parameters(parameters: Mapping[str, ParameterDescription]) -> str:
    """Return parameters as in a pipeline, with defaults; `[element]` for one that is empty."""
    return " ".join(_format_parameter(key, one.default) for key, one in parameters.items())


def _format_parameter(key: str, default: str | None) -> str:
    if default is None:
        return f"{key}=…"
    return f"{key}={default}" if default else f"[{key}]"


def _default_instance(operator: type[Operator]) -> Operator | None:
    """Return the operator with default parameters, or None if it has required ones."""
    try:
        return registry.build(operator.name, {})
    except (FogError, TypeError):
        return None


def _parameters(operator: type[Operator]) -> Iterator[tuple[str, ParameterDescription]]:
    defaults = {one.name: one.default for one in fields(operator)}
    for name, kind in registry.parameters(operator).items():
        default = None if defaults[name] is MISSING else _format_default(defaults[name])
        yield name, ParameterDescription(_format_type(kind), default)


def _format_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _format_default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _takes(operator: Operator) -> dict[str, tuple[str, ...]]:
    found = {}
    for channels, kind in _KINDS.items():
        taken = tuple(one for one in DTYPES if _accepts(operator, channels, one))
        if taken:
            found[kind] = taken
    return found


def _accepts(operator: Operator, channels: int, dtype: str) -> bool:
    try:
        operator.output(Spec(_PIXELS, _PIXELS, channels, dtype))
    except OperatorError:
        return False
    return True


def _exactness(operator: type[Operator]) -> str:
    if not operator.tiled:
        return "; ".join(filter(None, ("whole image on the gateway", operator.exactness)))
    return operator.exactness or "exact"


def _memory(operator: Operator | None) -> str:
    if not isinstance(operator, MemoryOperator):
        return ""
    if operator.window is not None:
        return f"{operator.window} frame{'s' if operator.window > 1 else ''}"
    pixel_bytes = operator.state_bytes(Spec(_PIXELS, _PIXELS)) / _PIXELS**2
    return f"{pixel_bytes:g} bytes for each gray pixel"


def _example(
    operator: type[Operator], default: Operator | None, takes: Mapping[str, tuple[str, ...]]
) -> str:
    calls = [str(registry.build(operator.name, one)) for one in operator.samples or () if one]
    call = min(calls, key=len, default=operator.name)
    if default is None and not calls:
        call = f"{operator.name} {_required_parameter(operator)}"
    needs_gray = "gray" in takes and "colour" not in takes
    return f"gray | {call}" if needs_gray else call


def _required_parameter(operator: type[Operator]) -> str:
    """Return the first parameter with a placeholder: for operators with required parameters."""
    return f"{next(iter(registry.parameters(operator)), '')}=…"
