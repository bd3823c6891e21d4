"""The registry: operators by name, built in and register_entry_points in."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from fogmqtt.errors import PipelineError
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import plugins, registry
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.edges.canny import Canny


@dataclass(frozen=True)
class Soften(Operator):
    """A plug-in."""

    name: ClassVar[str] = "soften"
    amount: float = 1.0

    def process(self, image: Image) -> Image:
        return image


@dataclass(frozen=True)
class Idle(Operator):
    """Computes nothing."""

    name: ClassVar[str] = "idle"


@dataclass(frozen=True)
class Nameless(Operator):
    """Has no name."""


class NoDataclass(Operator):
    """Is not a dataclass."""

    name: ClassVar[str] = "bare"


def a_function() -> None:
    """Is not an operator."""


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    registry.plug_in(())
    yield monkeypatch
    registry.plug_in(())


def register_entry_points(monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    found = [EntryPoint(name, value, plugins.GROUP) for name, value in entries.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found)
    module = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "a_plug_in", module)


def test_all_built_in_operators_load_under_their_own_name() -> None:
    for name in registry.names():
        assert registry.load(name).name == name


def test_listing_the_names_loads_no_pixel_library() -> None:
    code = (
        "import sys, fogmqtt.operators.api.registry as c; assert 'canny' in c.names();"
        "assert not {'cv2', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_values_may_be_text_or_of_their_type() -> None:
    expected = Canny(low=20, aperture=5, l2=True)
    assert registry.build("canny", {"low": "20", "aperture": "5", "l2": "true"}) == expected
    assert registry.build("canny", {"low": 20, "aperture": 5, "l2": True}) == expected
    assert registry.build("canny", expected.params()) == expected


@pytest.mark.parametrize("value", ["nan", "-inf", float("nan"), float("inf"), None, [1], "2x"])
def test_a_value_that_is_not_a_number_is_refused(value: object) -> None:
    with pytest.raises(PipelineError, match="canny: low="):
        registry.build("canny", {"low": value})


def test_an_installed_package_adds_operators(plug_in: pytest.MonkeyPatch) -> None:
    register_entry_points(plug_in, soften="a_plug_in:Soften")
    assert "soften" in registry.names()
    assert registry.build("soften", {"amount": "1.5"}).params() == {"amount": 1.5}
    with pytest.raises(PipelineError, match="did you mean 'soften'"):
        registry.load("softn")


def test_a_plug_in_cannot_have_a_built_in_or_an_invalid_name(
    plug_in: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    register_entry_points(plug_in, canny="a_plug_in:Soften", **{"a|b": "a_plug_in:Soften"})
    with caplog.at_level(logging.WARNING):
        assert "a|b" not in registry.names()
    assert registry.load("canny") is Canny
    assert "'canny'" in caplog.text
    assert "'a|b'" in caplog.text
    assert len(registry.problems()) == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("soften", "no_such_module:Soften", "cannot be imported .* ModuleNotFoundError"),
        ("soften", "a_plug_in:Missing", "cannot be imported .* AttributeError"),
        ("soften", "a_plug_in:a_function", "is not a class derived from .*Operator"),
        ("bare", "a_plug_in:NoDataclass", "it is not a dataclass; write @dataclass"),
        ("idle", "a_plug_in:Idle", "a_plug_in:Idle .*: it has no method 'process'"),
        ("nameless", "a_plug_in:Nameless", "has the name ''"),
        ("blunt", "a_plug_in:Soften", "has the name 'soften'"),
    ],
)
def test_a_broken_plug_in_is_named_and_does_not_affect_others(
    plug_in: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    register_entry_points(plug_in, **{name: value})
    with pytest.raises(PipelineError, match=message):
        registry.load(name)
    assert registry.load("gray").name == "gray"
