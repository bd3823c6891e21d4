"""Chains of operators: as text, as the stages that travel, and at work.

    gray | gaussian ksize=5 | canny low=50 high=150

A *stage* is a chain that is done on a tile in one go: the halos of its operators add up, and
only its last result is merged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import numpy as np

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Made, Operator, checked
from fogmqtt.operators.api.measuring import Measuring
from fogmqtt.operators.api.results import Given

Operators = Sequence[Operator]

_WORD = re.compile(r"[^\s|]+")


@dataclass(frozen=True, slots=True)
class Stage:
    """One round trip of tiles, or (`tiled` false) a step of the gateway's own."""

    #: Run by the gateway while it cuts: fewer bytes travel.
    narrowing: tuple[Operator, ...]
    #: Run on each tile by a device, or on the whole image by the gateway.
    operators: tuple[Operator, ...]
    tiled: bool
    #: What enters, what is sent, and what comes out.
    source: Spec
    sent: Spec
    result: Spec
    halo: int
    align: int

    @property
    def measures(self) -> bool:
        """Whether facts come out, not an image of `result`."""
        return self.operators[-1].measures


def parse(text: str) -> tuple[Operator, ...]:
    """The operators of a written pipeline.

    Raises PipelineError that names the wrong word and its column, counted from 1.
    """
    if not text.strip():
        raise PipelineError("the pipeline is empty; write for example 'gray | canny'")
    operators = tuple(_parse_call(text, start, end) for start, end in _calls(text))
    for operator, (start, _) in zip(operators[:-1], _calls(text), strict=False):
        if operator.measures:
            raise PipelineError(f"column {start + 1}: {_not_last(operator)}")
    return operators


def parse_post(text: str) -> tuple[Operator, ...]:
    """The operators for a job's merged image: none for an empty text.

    Raises PipelineError like `parse`, and where they would give facts.
    """
    operators = parse(text) if text.strip() else ()
    if operators and operators[-1].measures:
        raise PipelineError(
            f"post: {operators[-1].name} gives facts, and post makes an image of an image; "
            "put it at the end of the pipeline"
        )
    return operators


def written(operators: Operators) -> str:
    """The text that `parse` makes these operators from."""
    return " | ".join(str(operator) for operator in operators)


def calls(operators: Operators) -> list[tuple[str, dict[str, Any]]]:
    """Name and parameters of each operator, as they travel."""
    return [(operator.name, operator.params()) for operator in operators]


def prepared(stage: Stage, image: Image, original: Image) -> tuple[Operator, ...]:
    """The stage's operators, knowing what they must of the whole image that enters it."""
    first, *others = stage.operators
    return (first.prepare(image, original), *others) if first.begins_stage else stage.operators


def placed(operators: Operators, outer: Rect, size: tuple[int, int]) -> tuple[Operator, ...]:
    """The operators for a tile with this outer in an image of `size`, as they travel with it."""
    return tuple(operator.placed(outer, size) for operator in operators)


def stages(operators: Operators, spec: Spec) -> tuple[Stage, ...]:
    """How these operators are done on an image of `spec`.

    Raises OperatorError where one of them cannot take what the one before it gives.
    """
    found = []
    groups = _groups(operators)
    for group, following in zip(groups, [*groups[1:], None], strict=True):
        # A round trip only to narrow would cost more than the work, and what comes next looks
        # at the whole image on the gateway anyway.
        here = following is not None and all(operator.narrows for operator in group)
        stage = _stage(group, spec, tiled=group[0].tiled and not here)
        found.append(stage)
        spec = stage.result
    return tuple(found)


def result(operators: Operators, spec: Spec) -> Spec:
    """What comes out of the chain. Raises OperatorError like `stages`.

    Of a chain that ends with a measuring operator: what is measured.
    """
    for operator in operators:
        if operator.measures and operator is not operators[-1]:
            raise OperatorError(_not_last(operator))
        after = operator.output(spec)
        if operator.tiled and after.size != spec.size:
            raise OperatorError(
                f"{operator.name} makes {after} of {spec}, but runs tile by tile: "
                "it must keep the size, or set tiled = False"
            )
        spec = after
    return spec


def abilities(operators: Operators, spec: Spec) -> frozenset[str]:
    """What a device must have for this chain on images of `spec`.

    Raises OperatorError where one of them cannot take what the one before it gives.
    """
    found = set()
    for operator in operators:
        found.add(operator.ability(spec))
        spec = operator.output(spec)
    return frozenset(found)


def narrow(operators: Operators, pixels: Image) -> Image:
    """A tile as it is sent: `operators` are a stage's narrowing. Contiguous."""
    for operator in operators:
        pixels = operator.process(pixels)
    return np.ascontiguousarray(pixels)


def run_tile(operators: Operators, pixels: Image, core: Rect, seams: Seams) -> Given:
    """A device's work: the result for the core; pixels contiguous and in memory of their own.

    `core` is in the coordinates of `pixels`. Raises OperatorError for pixels that the operators
    cannot take or a core outside them.
    """
    if not operators:
        raise OperatorError("a stage without operators")
    sent = Spec.of(pixels)
    if not Rect(0, 0, *sent.size).contains(core):
        raise OperatorError(f"{core} is not within a tile of {sent}")
    result(operators, sent)
    image = pixels
    for operator in operators[:-1]:
        image = checked(operator, operator.process(image), operator.output(Spec.of(image)))
    last = operators[-1]
    if isinstance(last, Measuring):
        return last.measure(image, core, seams)
    expected = replace(last.output(Spec.of(image)), height=core.height, width=core.width)
    return _own(checked(last, last.process_tile(image, core, seams), expected), pixels)


def whole(operators: Operators, image: Image, original: Image) -> Made:
    """The pipeline on one machine: what tiles must equal. `original` is the job's image."""
    result(operators, Spec.of(image))
    done = image
    for operator in operators:
        knowing = operator.prepare(done, original)
        if isinstance(knowing, Measuring):
            return knowing.examine(done)
        done = knowing.whole(done)
    return _own(done, image)


def _own(image: Image, source: Image) -> Image:
    image = np.ascontiguousarray(image)
    return image.copy() if np.may_share_memory(image, source) else image


def _not_last(operator: Operator) -> str:
    return f"{operator.name} gives facts, not an image: nothing can come behind it"


def _calls(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for part in text.split("|"):
        yield start, start + len(part)
        start += len(part) + 1


def _parse_call(text: str, start: int, end: int) -> Operator:
    words = list(_WORD.finditer(text, start, end))
    if not words:
        raise PipelineError(f"column {start + 1}: there is no operator between the bars")
    try:
        operator = registry.load(words[0][0])
    except PipelineError as problem:
        raise _at(words[0], problem) from None
    params: dict[str, Any] = {}
    for word in words[1:]:
        try:
            _parse_param(operator, word[0], params)
        except PipelineError as problem:
            raise _at(word, problem) from None
    try:
        return operator(**params)
    except PipelineError as problem:
        raise _at(_meant(words, problem), problem) from None


def _meant(words: Sequence[re.Match[str]], problem: PipelineError) -> re.Match[str]:
    """The parameter that an operator complains of where it is written, or else the operator."""
    operator, *params = words
    said = str(problem).removeprefix(f"{operator[0]}: ")
    return next((word for word in params if said.startswith(f"{_key(word)}=")), operator)


def _key(word: re.Match[str]) -> str:
    return word[0].partition("=")[0]


def _parse_param(operator: type[Operator], word: str, params: dict[str, Any]) -> None:
    key, equals, value = word.partition("=")
    if not equals:
        raise PipelineError(f"{word!r} is no parameter of {operator.name}; write name=value")
    if key in params:
        raise PipelineError(f"{operator.name} has {key!r} twice")
    params[key] = registry.read(operator, key, value)


def _at(word: re.Match[str], problem: PipelineError) -> PipelineError:
    return PipelineError(f"column {word.start() + 1}: {problem}")


def _groups(operators: Operators) -> list[list[Operator]]:
    groups: list[list[Operator]] = []
    for operator in operators:
        if groups and _fuses(groups[-1][-1], operator):
            groups[-1].append(operator)
        else:
            groups.append([operator])
    return groups


def _fuses(before: Operator, operator: Operator) -> bool:
    if not before.tiled and not operator.tiled:
        return True
    return before.tiled and operator.tiled and not before.ends_stage and not operator.begins_stage


def _stage(group: list[Operator], spec: Spec, *, tiled: bool) -> Stage:
    out = result(group, spec)
    first = _narrowing(group, spec) if tiled else 0
    return Stage(
        narrowing=tuple(group[:first]),
        operators=tuple(group[first:]),
        tiled=tiled,
        source=spec,
        sent=result(group[:first], spec),
        result=out,
        halo=sum(operator.halo for operator in group),
        align=lcm(*_alignments(group, spec)),
    )


def _alignments(group: list[Operator], spec: Spec) -> Iterator[int]:
    for operator in group:
        yield operator.alignment(spec)
        spec = operator.output(spec)


def _narrowing(group: list[Operator], spec: Spec) -> int:
    """How many of the first operators the gateway runs: up to the last that saves bytes."""
    count = 0
    for index, operator in enumerate(group[:-1], 1):
        if not operator.narrows:
            break
        after = operator.output(spec)
        if after.pixel_bytes < spec.pixel_bytes:
            count = index
        spec = after
    return count
