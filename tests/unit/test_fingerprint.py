"""Abilities that a pipeline needs of a device, and the fingerprints that show them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar, get_args

import cv2
import numpy as np
import pytest
import xxhash

from fogmqtt.conformance import fingerprint
from fogmqtt.conformance.fingerprint import DTYPES, check_operator, versions
from fogmqtt.conformance.test_images import LARGE, NARROW, SMALL, reference_image
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator, Samples
from fogmqtt.operators.api.pipeline import parse, required_abilities
from fogmqtt.operators.detection import dnn
from fogmqtt.operators.detection.code_readers import KINDS
from fogmqtt.operators.detection.code_sample import sample_windows
from fogmqtt.operators.detection.codes import Codes
from fogmqtt.wire.messages import Dtype
from tests import networks
from tests.conformance import local_report

COLOUR = Spec(300, 400, 3)
#: Of `reference_image`, by dtype.
IMAGE_HASHES = [
    "45cea4b499a10203",
    "cf0cdbf4914f7001",
    "7d84d1417ea25641",
    "9544ef9ac1cd6bff",
    "5ddbfd0aa4c3e4ae",
    "bd31a85febc365d6",
    "e8f8bc1b59b80904",
]


@pytest.mark.parametrize(
    ("text", "spec", "expected"),
    [
        ("gray | canny", COLOUR, {"gray/uint8", "canny/uint8"}),
        ("gaussian", Spec(300, 400, 1, "uint16"), {"gaussian/uint16"}),
        ("tofloat | gaussian", COLOUR, {"tofloat/uint8", "gaussian/float32"}),
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
    sizes = (SMALL, LARGE, *NARROW)
    pixels = [
        b"".join(reference_image(Spec(*size, 3, one)).tobytes() for size in sizes) for one in DTYPES
    ]
    assert [xxhash.xxh3_64_hexdigest(one) for one in pixels] == IMAGE_HASHES


def test_integers_in_a_test_image_span_their_dtype() -> None:
    for dtype in ("uint8", "int8", "uint16", "int16"):
        image, kind = reference_image(Spec(*SMALL, 1, dtype)), np.iinfo(dtype)
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
        done[-1, -3] += np.uint8(self.off_by)
        return done


@dataclass(frozen=True)
class Vectorized(Odd):
    """Takes `vector` pixels at once, and rounds the remainder of a row otherwise.

    With `overlaps`, the last vector of a row ends with the row, so that nothing remains.
    """

    name: ClassVar[str] = "vectorized"
    vector: ClassVar[int] = 1
    overlaps: ClassVar[bool] = False

    def process(self, image: Image) -> Image:
        width = image.shape[1]
        done = image.copy()
        done[:, width - width % self.vector :] ^= np.uint8(1)
        return image if self.overlaps and width >= self.vector else done


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
    ours: dict[str, type[Operator]] = {
        one.name: one for one in (Odd, Vectorized, Demanding, Misspelt, Broken)
    }
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


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_remainder_that_rounds_otherwise_shows_for_every_width_of_a_vector(
    overlaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVX2 takes 32 pixels of 8 bits at once, NEON 16: with different remainders of equal rows."""
    found = set()
    for vector in (1, 4, 8, 16, 32, 64, 128):
        monkeypatch.setattr(Vectorized, "vector", vector)
        monkeypatch.setattr(Vectorized, "overlaps", overlaps and vector > 16)
        found.add(check_operator("vectorized").fingerprints["vectorized/uint8"])
    assert len(found) == 7


def test_an_operator_with_required_parameters_is_compared_by_versions() -> None:
    report = check_operator("demanding")
    assert set(report.fingerprints) == {f"demanding/{dtype}" for dtype in DTYPES}
    assert len(set(report.fingerprints.values())) == 1
    assert report.ns_per_pixel is None
    assert report.problem == ""


@pytest.mark.parametrize("name", ["codes", "dnn"])
def test_a_detector_is_compared_by_what_it_finds_in_images_of_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a Pi 4 and a Pi 5 do each other's tiles, as do two releases of Python and numpy."""
    ability = f"{name}/uint8"
    here = check_operator(name).fingerprints[ability]
    assert here == local_report().fingerprints[ability]
    other = versions() | {"numpy": "1.0", "machine": "aarch64", "cpu": "NEON"}
    monkeypatch.setattr(fingerprint, "versions", lambda: other)
    assert check_operator(name).fingerprints[ability] == here
    monkeypatch.setattr(fingerprint, "versions", lambda: other | {"opencv": "4.10.0"})
    assert check_operator(name).fingerprints[ability] != here
    monkeypatch.setattr(fingerprint, "versions", lambda: other)
    operator, found = registry.load(name), registry.load(name).probe()
    monkeypatch.setattr(operator, "probe", lambda: found[:-1] + bytes([found[-1] ^ 1]))
    assert check_operator(name).fingerprints[ability] != here


def test_an_engine_of_its_own_package_is_an_ability_with_that_packages_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = check_operator("dnn").fingerprints
    assert here["dnn/uint8/onnx"] not in ("", here["dnn/uint8"])
    other = versions() | {"onnxruntime": "1.0"}
    monkeypatch.setattr(fingerprint, "versions", lambda: other)
    there = check_operator("dnn").fingerprints
    assert there["dnn/uint8"] == here["dnn/uint8"]
    assert there["dnn/uint8/onnx"] != here["dnn/uint8/onnx"]


def test_the_sample_shows_a_code_of_each_kind() -> None:
    found = [Codes().detect(window) for window in sample_windows()]
    assert {one.kind for one in found[0]} == set(KINDS)
    assert all(len({one.kind for one in window}) >= 3 for window in found)


def test_the_network_that_devices_are_compared_by_never_changes() -> None:
    path = Path(dnn.__file__).with_name("probe.onnx")
    assert path.read_bytes() == networks.probe()


def test_the_windows_that_devices_are_compared_by_never_change() -> None:
    pixels = b"".join(window.tobytes() for window in sample_windows())
    assert xxhash.xxh3_64_hexdigest(pixels) == "d0dfb8dd0437bb04"


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
    assert versions()["zxing"] == metadata.version("zxing-cpp")
    assert set(versions()) == {"opencv", "numpy", "zxing", "onnxruntime", "machine", "cpu"}
