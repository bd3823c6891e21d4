"""An operator refuses an image that it cannot take before any work, and suggests a correction."""

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
    """Return the error; empty if the operator takes the image."""
    try:
        operator.output(spec)
    except OperatorError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize("name", [name for name in registry.names() if describe(name).takes])
def test_a_refusal_names_operator_and_image_and_its_advice_helps(name: str) -> None:
    operator = registry.build(name, {})
    for spec in SPECS:
        text = refusal(operator, spec)
        if not text:
            continue
        assert text.startswith(name)
        assert str(spec) in text or "takes uint16 up to" in text
        for advice in re.findall(r"put (.+?) before it", text):
            for before in re.findall(r"'(.+?)'", advice):
                assert helps(before, operator, spec), f"{text}: {before!r} does not help"


def helps(before: str, operator: Operator, spec: Spec) -> bool:
    """Return whether the image is then taken, or only refused for its channels or its dtype."""
    converted = parse(before)[0].output(spec)
    text = refusal(operator, converted)
    return not text or ("channel(s)" in text) != ("channel(s)" in refusal(operator, spec))


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
def test_a_pipeline_is_refused_with_the_operator_to_insert(
    text: str, spec: Spec, advice: str
) -> None:
    with pytest.raises(OperatorError, match=advice):
        split_stages(parse(text), spec)


#: Thresholds without limits, as in OpenCV: no gradient, or every gradient, is larger.
UNLIMITED = {("canny", "low"), ("canny", "high")}
NUMBERS = [
    (name, key)
    for name in registry.names()
    for key, one in describe(name).parameters.items()
    if one.type in {"int", "float"} and (name, key) not in UNLIMITED
]


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_every_number_has_limits(name: str, key: str) -> None:
    samples = registry.load(name).samples or ({},)
    for value in (-(10**9), 10**12):
        with pytest.raises(PipelineError, match=f"{name}: "):
            registry.build(name, {**samples[0], key: value})
