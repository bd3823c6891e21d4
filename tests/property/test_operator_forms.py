"""Forms for operators: each range is what the operator takes, to its ends and not beyond."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.operators.api import registry
from fogmqtt.operators.api.forms import FormField, form, refusal
from tests.drawn import PARAMS, operators

NAMES = registry.names()
#: Parameters that are text without a list of words.
FREE = {"element", "weights", "model", "sha256", "classes"}


def base(name: str) -> dict[str, Any]:
    return dict(registry.load(name).example_call)


def refused(name: str, field: FormField, value: Any) -> bool:
    """Whether a value is out of the parameter's range, and not only at odds with another one."""
    operator, call = registry.load(name), base(name)
    far = "\x7f" if field.type in ("choice", "text") and field.default == "" else 10**12
    said = refusal(operator, call, field.name, value).partition(": ")[2]
    return bool(said) and said == refusal(operator, call, field.name, far).partition(": ")[2]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_an_operator_has_what_a_form_needs(name: str) -> None:
    for field in form(name):
        assert field.summary, field
        if field.type in ("int", "float"):
            assert field.minimum is not None, field
            assert field.maximum is not None, field
            assert field.minimum <= field.default <= field.maximum or field.required, field
        elif field.type == "choice":
            assert str(field.default) in field.choices, field
        elif field.type == "text":
            assert field.choices or field.name in FREE, field


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_form_offers_what_the_operator_takes(name: str, data: st.DataObject) -> None:
    for field in form(name):
        if field.type == "choice":
            assert not refused(name, field, data.draw(st.sampled_from(field.choices)))
        if field.minimum is None or field.maximum is None:
            continue
        low, high = field.minimum, field.maximum
        if field.step is not None and field.step != 1:
            steps = data.draw(st.integers(0, int((high - low) / field.step)))
            value = low + steps * field.step
        else:
            value = data.draw(st.floats(low, high))
        value = int(value) if field.type == "int" else value
        # Between 0, which stands for something else, and the range there may be a gap.
        if field.step == 1 and _has_gap(name, field):
            continue
        assert not refused(name, field, value) or (low <= 0 and 0 <= value < 1), (field, value)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(far=st.integers(1, 10**6))
def test_a_form_offers_all_that_the_operator_takes(name: str, far: int) -> None:
    for field in form(name):
        if field.minimum is None or field.maximum is None:
            continue
        assert refused(name, field, int(field.maximum) + far), field
        if field.minimum == int(field.minimum):
            assert refused(name, field, int(field.minimum) - far), field


@pytest.mark.parametrize("name", sorted(PARAMS))
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_works_is_within_the_form(name: str, data: st.DataObject) -> None:
    operator = data.draw(operators(name))
    for field in form(name):
        value = getattr(operator, field.name)
        if field.minimum is not None and field.maximum is not None:
            assert field.minimum <= value <= field.maximum, field
        elif field.type == "choice":
            assert str(value) in field.choices, field


def _has_gap(name: str, field: FormField) -> bool:
    """Whether numbers between 0 and the range, or even ones, are refused."""
    return any(refused(name, field, number) for number in (1, 2, 3))
