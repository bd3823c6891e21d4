"""Pipelines: their text, their division into stages, and their execution.

    gray | gaussian ksize=5 | canny low=50 high=150

A *stage* is a sequence of operators that a device runs on a tile one after the other. The halos
of its operators add up, and only the result of the last one is merged.
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
from fogmqtt.operators.api.base import Operator, StageOutput, check_output
from fogmqtt.operators.api.measuring import Measuring
from fogmqtt.operators.api.results import TileResult

Operators = Sequence[Operator]

_WORD = re.compile(r"[^\s|]+")


@dataclass(frozen=True, slots=True)
class Stage:
    """Operators that run together: by a device on each tile, or by the gateway on the image."""

    #: Run by the gateway on each tile before it is sent, because they reduce its bytes.
    gateway_operators: tuple[Operator, ...]
    #: Run by a device on each tile, or by the gateway on the whole image.
    operators: tuple[Operator, ...]
    tiled: bool
    #: The spec of the image that enters, of the image that is sent, and of the result.
    source: Spec
    sent: Spec
    result: Spec
    halo: int
    align: int

    @property
    def measures(self) -> bool:
        """Whether the result is facts, and not an image of spec `result`."""
        return self.operators[-1].measures


def parse(text: str) -> tuple[Operator, ...]:
    """Return the operators of a pipeline's text.

    Raises PipelineError, which names the wrong word and its column, counted from 1.
    """
    if not text.strip():
        raise PipelineError("the pipeline is empty; write for example 'gray | canny'")
    operators = tuple(_parse_call(text, start, end) for start, end in _call_spans(text))
    for operator, (start, _) in zip(operators[:-1], _call_spans(text), strict=False):
        if operator.measures:
            raise PipelineError(f"column {start + 1}: {_must_be_last(operator)}")
    return operators


def parse_post(text: str) -> tuple[Operator, ...]:
    """Return the operators that post-process a job's merged image; none for an empty text.

    Raises PipelineError like `parse`, and if the result would be facts.
    """
    operators = parse(text) if text.strip() else ()
    if operators and operators[-1].measures:
        raise PipelineError(
            f"post: {operators[-1].name} gives facts, and post must give an image; "
            "put it at the end of the pipeline"
        )
    for operator in operators:
        if operator.has_memory:
            raise PipelineError(
                f"post: {operator.name} compares frames of a stream, and post gets single images; "
                "put it into the pipeline of a stream"
            )
    return operators


def format_pipeline(operators: Operators) -> str:
    """Return the text that `parse` turns into these operators."""
    return " | ".join(str(operator) for operator in operators)


def to_calls(operators: Operators) -> list[tuple[str, dict[str, Any]]]:
    """Return each operator's name and parameters, as they are sent to devices."""
    return [(operator.name, operator.params()) for operator in operators]


def prepare(stage: Stage, image: Image, original: Image) -> tuple[Operator, ...]:
    """The stage's operators, prepared_operator what they must of the whole image that enters it."""
    first, *others = stage.operators
    return (first.prepare(image, original), *others) if first.reads_image else stage.operators


def for_tile(operators: Operators, outer: Rect, size: tuple[int, int]) -> tuple[Operator, ...]:
    """Return the operators, as they are sent with a tile at `outer` in an image of `size`."""
    return tuple(operator.for_tile(outer, size) for operator in operators)


def split_stages(operators: Operators, spec: Spec) -> tuple[Stage, ...]:
    """Return the stages in which these operators run on an image of `spec`.

    Raises OperatorError if one of them cannot take the result of the one before.
    """
    result = []
    groups = _groups(operators)
    for group, following in zip(groups, [*groups[1:], None], strict=True):
        # Sending tiles would cost more than this work, and the next stage needs the whole image
        # on the gateway anyway.
        on_gateway = following is not None and all(operator.reduces_bytes for operator in group)
        stage = _stage(group, spec, tiled=group[0].tiled and not on_gateway)
        result.append(stage)
        spec = stage.result
    return tuple(result)


def output_spec(operators: Operators, spec: Spec) -> Spec:
    """Return the spec of the operators' result; if they end with a measuring one, of its input.

    Raises OperatorError if one of them cannot take the result of the one before.
    """
    for operator in operators:
        if operator.measures and operator is not operators[-1]:
            raise OperatorError(_must_be_last(operator))
        after = operator.output(spec)
        if operator.tiled and after.size != spec.size:
            raise OperatorError(
                f"{operator.name} makes {after} of {spec}, but runs tile by tile: "
                "it must keep the size, or set tiled = False"
            )
        spec = after
    return spec


def required_abilities(operators: Operators, spec: Spec) -> frozenset[str]:
    """Return the abilities that a device needs to run these operators on images of `spec`.

    Raises OperatorError if one of them cannot take the result of the one before.
    """
    result = set()
    for operator in operators:
        result.add(operator.ability(spec))
        spec = operator.output(spec)
    return frozenset(result)


def run_gateway_operators(operators: Operators, pixels: Image) -> Image:
    """Return a tile's pixels as they are sent, contiguous.

    `operators` are the `gateway_operators` of a stage.
    """
    for operator in operators:
        pixels = operator.process(pixels)
    return np.ascontiguousarray(pixels)


def run_tile(operators: Operators, pixels: Image, core: Rect, seams: Seams) -> TileResult:
    """Run a stage's operators on a tile, as a device does, and return the result for its core.

    `pixels` is the tile with its halo, `core` its core in the coordinates of `pixels`, and `seams`
    says which sides of the core are not the image's border. A resulting image is contiguous and
    shares no memory with `pixels`.

    Raises OperatorError if the operators cannot take `pixels`, if `core` is not within it, or if
    an operator's result has another spec than its `output` says.
    """
    if not operators:
        raise OperatorError("the stage has no operators")
    sent = Spec.of(pixels)
    if not Rect(0, 0, *sent.size).contains(core):
        raise OperatorError(f"{core} is not within a tile of {sent}")
    output_spec(operators, sent)
    image = pixels
    for operator in operators[:-1]:
        image = check_output(operator, operator.process(image), operator.output(Spec.of(image)))
    last = operators[-1]
    if isinstance(last, Measuring):
        return last.measure(image, core, seams)
    expected = replace(last.output(Spec.of(image)), height=core.height, width=core.width)
    return _own_memory(check_output(last, last.process_tile(image, core, seams), expected), pixels)


def run_whole(operators: Operators, image: Image, original: Image) -> StageOutput:
    """Run a pipeline on a whole image on one machine: the result that tiles must equal.

    `original` is the image that the job came with. A resulting image is contiguous and shares no
    memory with `image`. Raises OperatorError like `output_spec`.
    """
    output_spec(operators, Spec.of(image))
    done = image
    for operator in operators:
        prepared_operator = operator.prepare(done, original)
        if isinstance(prepared_operator, Measuring):
            return prepared_operator.measure_whole(done)
        done = prepared_operator.whole(done)
    return _own_memory(done, image)


def _own_memory(image: Image, source: Image) -> Image:
    image = np.ascontiguousarray(image)
    return image.copy() if np.may_share_memory(image, source) else image


def _must_be_last(operator: Operator) -> str:
    return f"{operator.name} gives facts, not an image: it must be the last operator"


def _call_spans(text: str) -> Iterator[tuple[int, int]]:
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
        raise _at_column(words[0], problem) from None
    params: dict[str, Any] = {}
    for word in words[1:]:
        try:
            _parse_param(operator, word[0], params)
        except PipelineError as problem:
            raise _at_column(word, problem) from None
    try:
        return operator(**params)
    except PipelineError as problem:
        raise _at_column(_word_of(words, problem), problem) from None


def _word_of(words: Sequence[re.Match[str]], problem: PipelineError) -> re.Match[str]:
    """Return the word of the parameter that an error names, or else the operator's word."""
    operator, *params = words
    text = str(problem).removeprefix(f"{operator[0]}: ")
    return next((word for word in params if text.startswith(f"{_parameter_name(word)}=")), operator)


def _parameter_name(word: re.Match[str]) -> str:
    return word[0].partition("=")[0]


def _parse_param(operator: type[Operator], word: str, params: dict[str, Any]) -> None:
    key, equals, value = word.partition("=")
    if not equals:
        raise PipelineError(f"{word!r} is not a parameter of {operator.name}; write name=value")
    if key in params:
        raise PipelineError(f"{operator.name} has {key!r} twice")
    params[key] = registry.parse_value(operator, key, value)


def _at_column(word: re.Match[str], problem: PipelineError) -> PipelineError:
    return PipelineError(f"column {word.start() + 1}: {problem}")


def _groups(operators: Operators) -> list[list[Operator]]:
    groups: list[list[Operator]] = []
    for operator in operators:
        if groups and _can_fuse(groups[-1][-1], operator):
            groups[-1].append(operator)
        else:
            groups.append([operator])
    return groups


def _can_fuse(before: Operator, operator: Operator) -> bool:
    if not before.tiled and not operator.tiled:
        return True
    return before.tiled and operator.tiled and not before.ends_stage and not operator.reads_image


def _stage(group: list[Operator], spec: Spec, *, tiled: bool) -> Stage:
    out = output_spec(group, spec)
    first = _count_gateway_operators(group, spec) if tiled else 0
    return Stage(
        gateway_operators=tuple(group[:first]),
        operators=tuple(group[first:]),
        tiled=tiled,
        source=spec,
        sent=output_spec(group[:first], spec),
        result=out,
        halo=sum(operator.halo for operator in group),
        align=lcm(*_alignments(group, spec)),
    )


def _alignments(group: list[Operator], spec: Spec) -> Iterator[int]:
    for operator in group:
        yield operator.alignment(spec)
        spec = operator.output(spec)


def _count_gateway_operators(group: list[Operator], spec: Spec) -> int:
    """Return how many of the first operators the gateway runs: up to the last that saves bytes."""
    count = 0
    for index, operator in enumerate(group[:-1], 1):
        if not operator.reduces_bytes:
            break
        after = operator.output(spec)
        if after.pixel_bytes < spec.pixel_bytes:
            count = index
        spec = after
    return count
