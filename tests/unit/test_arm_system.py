"""What the test on emulated arm64 says where it cannot run, and which releases it compares."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from fogmqtt.conformance.report import ConformanceReport, OperatorReport
from tests.arm import __main__ as arm
from tests.arm import system
from tests.arm.work import operators


def test_a_machine_without_apt_is_told_what_is_missing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.arm", "--folder", str(tmp_path)],
        cwd=system.ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("arm: ")


def test_the_same_releases_are_installed_as_here() -> None:
    pins = dict(pin.split("==") for pin in system._pins())
    assert pins["opencv-python-headless"] == importlib.metadata.version("opencv-python-headless")
    assert {"numpy", "msgspec", "paho-mqtt"} <= pins.keys()
    assert "pytest" not in pins


def test_an_ability_that_differs_must_be_listed() -> None:
    def report(**prints: str) -> ConformanceReport:
        named = {name.replace("_", "/"): value for name, value in prints.items()}
        return ConformanceReport({"all": OperatorReport("all", fingerprints=named)})

    here = report(canny_uint8="a", hsv_uint8="b")
    assert arm._differing_abilities(here, report(canny_uint8="a", hsv_uint8="c")) == {"hsv/uint8"}
    with pytest.raises(arm.DiffersError, match=r"not in may_differ\.txt: canny/uint8"):
        arm._differing_abilities(here, report(canny_uint8="x", hsv_uint8="b"))


def test_a_result_that_differs_must_be_told_by_its_fingerprint() -> None:
    here, there = ({"hsv/uint8: hsv, 31x37": one} for one in "ab")
    arm._compare_digests(here, there, frozenset({"hsv/uint8"}))
    with pytest.raises(arm.DiffersError, match="1 results differ although"):
        arm._compare_digests(here, there, frozenset())


def test_every_tiled_operator_with_samples_is_compared() -> None:
    assert {"canny", "clahe", "components", "hsv"} <= {operator.name for operator in operators()}
