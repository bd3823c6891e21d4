"""What people and programs are told of operators."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args, get_origin

from fogmqtt.errors import FogError, OperatorError, PipelineError
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator

#: What is tried, and how it is written; images of 64 x 64 pixels.
DTYPES = {"uint8": "8", "uint16": "16", "float32": "f32"}
_KINDS = {1: "gray", 3: "colour"}
_PIXELS = 64


@dataclass(frozen=True, slots=True)
class Parameter:
    """What can be written behind an operator's name."""

    type: str
    #: None where it must be given.
    default: str | None


@dataclass(frozen=True, slots=True)
class Description:
    """One operator."""

    name: str
    summary: str
    #: All that its author says of it.
    text: str
    parameters: Mapping[str, Parameter]
    #: `gray` and `colour`: the dtypes that it takes of them with default parameters.
    takes: Mapping[str, tuple[str, ...]]
    #: `exact`, or in which way.
    exact: str
    #: Whether devices do it; else it sees the image whole, on the gateway.
    tiled: bool
    measures: bool
    #: With default parameters.
    halo: int | None
    align: int
    #: What it came with, and that one's version.
    package: str
    version: str
    #: A pipeline that works.
    example: str


@dataclass(frozen=True, slots=True)
class Library:
    """All operators, and what is wrong with those that are skipped."""

    operators: tuple[Description, ...]
    problems: tuple[str, ...]


def library() -> Library:
    """Everything that this process can use. Imports all of it."""
    problems = list(registry.problems())
    described = []
    for name in registry.names():
        try:
            described.append(describe(name))
        except PipelineError as problem:
            problems.append(str(problem))
    return Library(tuple(described), tuple(problems))


def describe(name: str) -> Description:
    """One operator. Raises PipelineError like `catalog.load`."""
    operator = registry.load(name)
    text = inspect.getdoc(operator) or ""
    usual = _usual(operator)
    takes = _takes(usual) if usual else {}
    origin = registry.origin(name)
    return Description(
        name=name,
        summary=" ".join(text.partition("\n\n")[0].split()),
        text=text,
        parameters=dict(_parameters(operator)),
        takes=takes,
        exact=_exact(operator),
        tiled=operator.tiled,
        measures=operator.measures,
        halo=usual.halo if usual else None,
        align=operator.align,
        package=origin.package,
        version=origin.version,
        example=_example(operator, usual, takes),
    )


def images(takes: Mapping[str, tuple[str, ...]]) -> str:
    """In few letters: `8 16 f32` for gray and colour, `gray 8` where only gray is taken."""
    if not takes:
        return "see its help"
    short = {kind: " ".join(DTYPES[one] for one in dtypes) for kind, dtypes in takes.items()}
    if len(short) == len(_KINDS) and len(set(short.values())) == 1:
        return short["gray"]
    return ", ".join(f"{kind} {dtypes}" for kind, dtypes in short.items())


def written(parameters: Mapping[str, Parameter]) -> str:
    """As in a pipeline, with the defaults; `[element]` for a text that is usually empty."""
    return " ".join(_shown(key, one.default) for key, one in parameters.items())


def _shown(key: str, default: str | None) -> str:
    if default is None:
        return f"{key}=…"
    return f"{key}={default}" if default else f"[{key}]"


def _usual(operator: type[Operator]) -> Operator | None:
    """With default parameters; None where some must be given."""
    try:
        return registry.build(operator.name, {})
    except (FogError, TypeError):
        return None


def _parameters(operator: type[Operator]) -> Iterator[tuple[str, Parameter]]:
    defaults = {one.name: one.default for one in fields(operator)}
    for name, kind in registry.parameters(operator).items():
        default = None if defaults[name] is MISSING else _text(defaults[name])
        yield name, Parameter(_type(kind), default)


def _type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _text(value: object) -> str:
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


def _exact(operator: type[Operator]) -> str:
    if not operator.tiled:
        return "; ".join(filter(None, ("whole image on the gateway", operator.exactness)))
    return operator.exactness or "exact"


def _example(
    operator: type[Operator], usual: Operator | None, takes: Mapping[str, tuple[str, ...]]
) -> str:
    calls = [str(registry.build(operator.name, one)) for one in operator.samples or () if one]
    call = min(calls, key=len, default=operator.name)
    if usual is None and not calls:
        call = f"{operator.name} {_needed(operator)}"
    needs_gray = "gray" in takes and "colour" not in takes
    return f"gray | {call}" if needs_gray else call


def _needed(operator: type[Operator]) -> str:
    """The first parameter: of what cannot be made without any, it is one that must be given."""
    return f"{next(iter(registry.parameters(operator)), '')}=…"
