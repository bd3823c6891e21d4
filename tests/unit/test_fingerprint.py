"""Abilities that a pipeline needs of a device, and the fingerprints that show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import cv2
import numpy as np
import pytest
import xxhash

from fogmqtt.conformance.fingerprint import DTYPES, check_operator, versions
from fogmqtt.conformance.test_images import reference_image
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator, Samples
from fogmqtt.operators.api.pipeline import parse, required_abilities
from fogmqtt.wire.messages import Dtype
from tests.conformance import local_report

COLOUR = Spec(300, 400, 3)
#: Of `reference_image`, by dtype.
IMAGE_HASHES = [
    "ef4c42eec30ae316",
    "6d7ab827c639e908",
    "b8689d092773c8c7",
    "9f2319e46606d51e",
    "9f82c316e2d7e5a4",
    "a135f30de6724bf1",
    "9de50fd1234d2e54",
]


@pytest.mark.parametrize(
    ("text", "spec", "expected"),
    [
        ("gray | canny", COLOUR, {"gray/uint8", "canny/uint8"}),
        ("gaussian", Spec(300, 400, 1, "uint16"), {"gaussian/uint16"}),
        ("tofloat | gaussian", COLOUR, {"tofloat/uint8", "gaussian/float32"}),
        ("gaussian ksize=15 | gaussian", COLOUR, {"gaussian/uint8/k15", "gaussian/uint8"}),
        ("gaussian ksize=0 sigma=3.3", COLOUR, {"gaussian/uint8/k21"}),
        ("gaussian ksize=15", Spec(9, 9, 1, "uint16"), {"gaussian/uint16"}),
        ("unsharp ksize=21", COLOUR, {"unsharp/uint8/k21"}),
        ("hsv | hsv back=true", COLOUR, {"hsv/uint8", "hsv/uint8/back"}),
        ("gray | adaptive method=gaussian", COLOUR, {"gray/uint8", "adaptive/uint8/gaussian"}),
    ],
)
def test_a_pipeline_needs_each_operator_for_the_dtype_that_it_sees(
    text: str, spec: Spec, expected: set[str]
) -> None:
    assert required_abilities(parse(text), spec) == expected


def test_every_dtype_of_the_wire_is_checked() -> None:
    assert set(get_args(Dtype)) == set(DTYPES)


@pytest.mark.parametrize("name", [one for one in registry.names() if registry.load(one).tiled])
def test_every_operator_has_a_fingerprint_for_each_dtype_that_it_takes(name: str) -> None:
    report = local_report().operators[name]
    assert report.problem == ""
    assert report.fingerprints
    assert report.package == "fogmqtt"


def test_an_operator_that_runs_on_the_gateway_has_no_fingerprint() -> None:
    assert local_report().operators["flip"].fingerprints == {}


@pytest.mark.parametrize("name", ["bilateral", "canny", "clahe", "gaussian", "hsv", "median"])
def test_another_process_and_more_threads_have_the_same_fingerprints(name: str) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        assert check_operator(name).fingerprints == local_report().operators[name].fingerprints
    finally:
        cv2.setNumThreads(threads)


def test_each_tiled_operator_has_a_speed() -> None:
    rates = local_report().rates
    assert 0 < rates["invert"] < rates["denoise"]
    assert "flip" not in rates


def test_the_test_images_never_change() -> None:
    """Another image gives other fingerprints: all devices of a fleet would need an update."""
    hashes = [
        xxhash.xxh3_64_hexdigest(reference_image(Spec(97, 173, 3, one)).tobytes()) for one in DTYPES
    ]
    assert hashes == IMAGE_HASHES


def test_integers_in_a_test_image_span_their_dtype() -> None:
    for dtype in ("uint8", "int8", "uint16", "int16"):
        image, kind = reference_image(Spec(97, 173, 1, dtype)), np.iinfo(dtype)
        assert image.min() < kind.min + 100
        assert image.max() > kind.max - 100


@dataclass(frozen=True)
class Odd(Operator):
    """Returns the image, with `off_by` added to one pixel."""

    name: ClassVar[str] = "odd"
    off_by: ClassVar[int] = 0

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",))
        return spec

    def process(self, image: Image) -> Image:
        done = image.copy()
        done[96, 170] += np.uint8(self.off_by)
        return done


@dataclass(frozen=True)
class Demanding(Odd):
    name: ClassVar[str] = "demanding"

    model: str = ""

    def __post_init__(self) -> None:
        self._require(bool(self.model), "model", "expected a file")


@dataclass(frozen=True)
class Misspelt(Odd):
    name: ClassVar[str] = "misspelt"
    samples: ClassVar[Samples] = ({"modle": "x"},)


@dataclass(frozen=True)
class Broken(Odd):
    name: ClassVar[str] = "broken"

    def process(self, image: Image) -> Image:
        raise ZeroDivisionError


@pytest.fixture(autouse=True)
def _plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators of this file are in the registry."""
    ours: dict[str, type[Operator]] = {one.name: one for one in (Odd, Demanding, Misspelt, Broken)}
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda name: ours.get(name) or load(name))
    monkeypatch.setattr(registry, "build", lambda name, params: registry.load(name)(**params))


def test_one_pixel_that_is_off_by_one_is_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = check_operator("odd").fingerprints
    assert set(right) == {"odd/uint8"}
    assert check_operator("odd").fingerprints == right
    monkeypatch.setattr(Odd, "off_by", 1)
    assert check_operator("odd").fingerprints != right


def test_an_operator_with_required_parameters_is_compared_by_versions() -> None:
    report = check_operator("demanding")
    assert set(report.fingerprints) == {f"demanding/{dtype}" for dtype in DTYPES}
    assert len(set(report.fingerprints.values())) == 1
    assert report.ns_per_pixel is None
    assert report.problem == ""


def test_a_detector_is_compared_by_versions() -> None:
    assert set(local_report().operators["codes"].fingerprints) == {"codes/uint8"}


def test_invalid_samples_are_a_problem() -> None:
    report = check_operator("misspelt")
    assert report.fingerprints == {}
    assert report.problem.startswith("misspelt: TypeError: ")


def test_an_operator_that_raises_has_a_fingerprint() -> None:
    """So devices get its tiles, and report the traceback."""
    report = check_operator("broken")
    assert set(report.fingerprints) == {"broken/uint8"}
    assert report.ns_per_pixel is None


def test_versions_name_what_decides_rounding() -> None:
    assert versions()["opencv"] == cv2.__version__
    assert set(versions()) == {"opencv", "numpy", "machine", "cpu"}
