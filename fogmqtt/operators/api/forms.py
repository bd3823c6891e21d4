"""The parameters of operators as fields of a form, with ranges, steps, choices and units.

An operator says what it takes in one place: where it refuses a value. So each range comes from the
refusal of a value that no parameter takes ("expected an odd number from 3 to 127"), and it is
used only if the operator takes its ends and refuses what is beyond them. Units and summaries come
from the docstring. Plug-ins that word their refusals in the same way get ranges, too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from typing import Any, Final, Literal, get_args, get_origin

from fogmqtt.errors import FogError, PipelineError
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator

FieldType = Literal["int", "float", "bool", "text", "choice"]

#: Values that no parameter takes, by the type of the parameter.
_FAR: Final = 10**12
_NO_WORD: Final = "\x7f"
_NUMBER: Final = r"-?\d+(?:\.\d+)?(?:e\d+)?"
_RANGE: Final = re.compile(
    rf"expected (?P<odd>an odd number from )?(?P<over>over )?(?:\w+=)?(?P<low>{_NUMBER}),? to "
    rf"(?P<high>{_NUMBER})(?P<steps> in steps of (?P<step>{_NUMBER}))?"
    rf"(?: (?P<unit>(?!or\b|for\b|so\b)[a-z]+(?: [a-z]+)?))?(?P<zero>, or 0)?"
)
_POWERS: Final = re.compile(
    rf"expected a power of (?:2|two) (?:up to|from 1 to) (?P<high>{_NUMBER})"
)
_LIST: Final = re.compile(r"(?:expected|there are) (?P<words>[\w.+-]+(?:(?:, | or )[\w.+-]+)+)")
_SOME_OF: Final = re.compile(r"expected some of (?P<words>\w+(?:,\w+)+)")
_UNIT: Final = re.compile(r"\bin (?P<unit>pixels|degrees|percent)\b")
#: What is tried as the least value above an open end.
_SMALL: Final = (0.01, 0.001, 1e-6)


@dataclass(frozen=True, slots=True)
class FormField:
    """A parameter, as a form shows it."""

    name: str
    type: FieldType
    required: bool
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    #: All values of a choice; of a text, suggestions.
    choices: tuple[str, ...] = ()
    unit: str = ""
    summary: str = ""


@cache
def form(name: str) -> tuple[FormField, ...]:
    """Return the parameters of an operator that a user can write. Raises like `registry.load`."""
    operator = registry.load(name)
    base = _working_call(operator)
    summaries = dict(_summaries(inspect.getdoc(operator) or ""))
    defaults = {one.name: one.default for one in fields(operator)}
    return tuple(
        _described(
            _field(operator, base, parameter, kind, defaults[parameter]),
            summaries.get(parameter, ""),
        )
        for parameter, kind in registry.parameters(operator).items()
    )


def _described(made: FormField, summary: str) -> FormField:
    """Return the field with its summary, and with the unit that this names."""
    found = _UNIT.search(summary) if made.type in ("int", "float") else None
    return replace(made, summary=summary, unit=made.unit or (found["unit"] if found else ""))


def refusal(operator: type[Operator], call: Mapping[str, Any], parameter: str, value: Any) -> str:
    """Return what an operator expects of a parameter where it refuses a value; or "".

    A refusal for the sake of another parameter does not count.
    """
    try:
        registry.build(operator.name, {**call, parameter: value})
    except PipelineError as problem:
        # The text is `operator: parameter=value: what is expected`.
        head = f"{operator.name}: {parameter}="
        return str(problem).removeprefix(head) if str(problem).startswith(head) else ""
    except (FogError, TypeError):
        return ""
    return ""


def _working_call(operator: type[Operator]) -> Mapping[str, Any]:
    """Return parameters with which the operator can be built."""
    for call in ({}, operator.example_call, *operator.samples):
        try:
            registry.build(operator.name, call)
        except (FogError, TypeError):
            continue
        return call
    return {}


def _field(
    operator: type[Operator], base: Mapping[str, Any], name: str, kind: Any, default: Any
) -> FormField:
    required = default is MISSING
    made = FormField(name, _type(kind), required, None if required else default)
    if get_origin(kind) is Literal:
        return replace(made, choices=tuple(map(str, get_args(kind))))
    if made.type in ("int", "float"):
        return _number(made, operator, base)
    return _text(made, operator, base) if made.type == "text" else made


def _type(kind: Any) -> FieldType:
    if get_origin(kind) is Literal:
        return "choice"
    return {bool: "bool", int: "int", float: "float"}.get(kind, "text")  # type: ignore[return-value]


def _number(made: FormField, operator: type[Operator], base: Mapping[str, Any]) -> FormField:
    far = _FAR if made.type == "int" else float(_FAR)
    said = refusal(operator, base, made.name, far)

    def takes(value: float) -> bool:
        number = int(value) if made.type == "int" else float(value)
        told = refusal(operator, base, made.name, number)
        return _expected(told) != _expected(said) or not told

    if (found := _POWERS.search(said)) is not None:
        powers = [1 << bit for bit in range(int(float(found["high"])).bit_length())]
        return _choice(made, tuple(str(one) for one in powers if takes(one)))
    if (found := _RANGE.search(said)) is not None:
        return _ranged(made, found, takes)
    if (found := _LIST.search(said)) is not None:
        return _choice(made, tuple(one for one in _words(found) if takes(float(one))))
    return made


def _ranged(made: FormField, found: re.Match[str], takes: Any) -> FormField:
    """Return the field with the range of a refusal, if the operator keeps it."""
    low, high = float(found["low"]), float(found["high"])
    step = 2.0 if found["odd"] else (1.0 if made.type == "int" else None)
    if found["steps"]:
        step = float(found["step"])
    if found["over"]:
        low = next((low + small for small in _SMALL if takes(low + small)), low)
    default = made.default if isinstance(made.default, int | float) else low
    if found["zero"] or default < low:  # such as a 0 that stands for "choose it yourself"
        low, step = min(default, 0.0), (1.0 if made.type == "int" else None)
    # Below an open end the step decides, and below a value of its own nothing is said.
    beyond = [high + 1] if found["over"] else [low - 1, high + 1]
    if not (takes(low) and takes(high)) or any(takes(one) for one in beyond):
        return made
    return replace(made, minimum=low, maximum=high, step=step, unit=found["unit"] or "")


def _text(made: FormField, operator: type[Operator], base: Mapping[str, Any]) -> FormField:
    said = refusal(operator, base, made.name, _NO_WORD)
    if (found := _SOME_OF.search(said)) is not None:
        return replace(made, choices=tuple(found["words"].split(",")))
    if (found := _LIST.search(said)) is None:
        return made
    words = tuple(word for word in _words(found) if not refusal(operator, base, made.name, word))
    # More may follow the words: "…, or write hex as ff8000".
    is_all = said.endswith(found["words"])
    return _choice(made, words) if is_all else replace(made, choices=words)


def _choice(made: FormField, words: tuple[str, ...]) -> FormField:
    default = None if made.default is None else f"{made.default}"
    return replace(made, type="choice", choices=words, default=default) if words else made


def _words(found: re.Match[str]) -> list[str]:
    return re.split(r", | or ", found["words"])


def _expected(said: str) -> str:
    """Return a refusal without the value."""
    return said.partition(": ")[2]


def _summaries(text: str) -> Iterator[tuple[str, str]]:
    """Yield each parameter with its description from a docstring of NumPy's form."""
    _, _, section = text.partition("Parameters\n----------\n")
    names: list[str] = []
    words: list[str] = []
    for line in [*section.splitlines(), ":"]:
        if line[:1].isspace():
            words.append(line.strip())
            continue
        yield from ((name, " ".join(words)) for name in names)
        head, colon, _ = line.partition(" :")
        names, words = ([one.strip() for one in head.split(",")] if colon else []), []
        if line and not colon:
            return
