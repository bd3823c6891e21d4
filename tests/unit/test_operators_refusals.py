"""An operator that cannot take an image says so before any pixel, with the way out."""

from __future__ import annotations

import re

import pytest

from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.describe import describe
from fogmqtt.operators.api.pipeline import parse, split_stages

SPECS = [
    Spec(64, 64, channels, dtype)
    for channels in (1, 3, 4)
    for dtype in ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")
]


def refusal(operator: Operator, spec: Spec) -> str:
    """The sentence; nothing where it takes the image."""
    try:
        operator.output(spec)
    except OperatorError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize("name", [name for name in registry.names() if describe(name).takes])
def test_a_refusal_names_operator_and_image_and_its_advice_helps(name: str) -> None:
    operator = registry.build(name, {})
    for spec in SPECS:
        said = refusal(operator, spec)
        if not said:
            continue
        assert said.startswith(name)
        assert str(spec) in said or "takes uint16 up to" in said
        for advice in re.findall(r"put (.+?) before it", said):
            for before in re.findall(r"'(.+?)'", advice):
                assert helps(before, operator, spec), f"{said}: {before!r} does not help"


def helps(before: str, operator: Operator, spec: Spec) -> bool:
    """Whether the image is taken then, or only the other half of it is still wrong."""
    there = parse(before)[0].output(spec)
    said = refusal(operator, there)
    return not said or ("channel(s)" in said) != ("channel(s)" in refusal(operator, spec))


@pytest.mark.parametrize(
    ("text", "spec", "advice"),
    [
        ("canny", Spec(9, 9, 1, "uint16"), "canny takes uint8, not 9x9 gray uint16; put 'to8bit'"),
        ("hsv", Spec(9, 9, 3, "uint16"), "put 'to8bit' or 'tofloat' before it"),
        ("otsu", Spec(9, 9, 3), "otsu takes 1 channel.s., not 9x9 colour uint8; put 'gray'"),
        ("otsu", Spec(9, 9, 4), "put 'channel which=0' before it"),
        ("hsv", Spec(9, 9, 1), "it needs a colour image"),
        ("gray | hsv", Spec(9, 9, 3), "hsv takes 3 channel.s., not 9x9 gray uint8"),
        ("sobel absolute=false | canny", Spec(9, 9), "canny takes uint8, not 9x9 gray int16$"),
    ],
)
def test_what_to_put_before_it_is_said_before_anything_runs(
    text: str, spec: Spec, advice: str
) -> None:
    with pytest.raises(OperatorError, match=advice):
        split_stages(parse(text), spec)


#: Of any size in OpenCV too: nothing, or everything, is steeper.
FREE = {("canny", "low"), ("canny", "high")}
NUMBERS = [
    (name, key)
    for name in registry.names()
    for key, one in describe(name).parameters.items()
    if one.type in {"int", "float"} and (name, key) not in FREE
]


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_every_figure_has_its_limits(name: str, key: str) -> None:
    samples = registry.load(name).samples or ({},)
    for value in (-(10**9), 10**12):
        with pytest.raises(PipelineError, match=f"{name}: "):
            registry.build(name, {**samples[0], key: value})
