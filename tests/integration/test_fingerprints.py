"""A device whose OpenCV rounds differently gets no tiles of such operators, and is named.

It has the same OpenCV, but without AVX2 and FMA, so that sums of floats round differently.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.images.spec import Image
from tests.conformance import local_report
from tests.fog import RealBroker
from tests.processes import Fog, fog_at, photo, read, same

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="OpenCV for ARM cannot be told to round differently"
)

FLOAT = "gray | tofloat | gaussian ksize=9"


@pytest.fixture(scope="module")
def fog(broker: RealBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """`eya` rounds as the gateway does, `manar` does not; both are slow enough to share."""
    local_report()  # the first start on a machine takes longer, which is not the point
    with fog_at(tmp_path_factory.mktemp("prints"), broker, WIRE__PREFIX="prints") as made:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OPENCV_CPU_DISABLE", "AVX2,FMA3")
            made.device("manar", "--emulate-speed", "200000").says("manar is online")
        made.fleet("eya", speed=200_000)
        made.save("in.png", photo(320, 400))
        told_by(made, "manar")
        yield made


def told_by(fog: Fog, device: str) -> Any:
    """What `fog-gateway devices` tells of one that was examined."""
    while True:
        done = fog.command("devices", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)[device]
        if not told.get("conformance_running"):
            return told


def expected(fog: Fog) -> Image:
    gray = cv2.cvtColor(read(fog.folder / "in.png"), cv2.COLOR_BGR2GRAY)
    return cv2.GaussianBlur(gray.astype(np.float32) / np.float32(255), (9, 9), 0)


def test_it_gets_no_tiles_of_what_it_rounds_differently(fog: Fog) -> None:
    ran = fog.run(
        *(fog.folder / "in.png", "-o", "float.tiff"),
        *("--pipeline", FLOAT, "--tiles", "size 64x64", "--verify"),
    )
    assert set(ran.report["devices"]) == {"eya"}
    assert same(read(fog.folder / "float.tiff"), expected(fog))


def test_it_does_its_share_of_everything_else(fog: Fog) -> None:
    ran = fog.run(
        *(fog.folder / "in.png", "-o", "edges.png"),
        *("--pipeline", "gaussian | gray | canny", "--tiles", "size 64x64", "--verify"),
    )
    assert set(ran.report["devices"]) == {"eya", "manar"}
    assert ran.report["differ"] == 0


def test_whoever_does_not_mind_says_so(fog: Fog) -> None:
    ran = fog.run(
        *(fog.folder / "in.png", "-o", "near.tiff"),
        *("--pipeline", FLOAT, "--tiles", "size 64x64"),
        EXACT="false",
    )
    assert set(ran.report["devices"]) == {"eya", "manar"}
    assert np.allclose(read(fog.folder / "near.tiff"), expected(fog), atol=1e-6)


def test_devices_names_it_and_why(fog: Fog) -> None:
    told = told_by(fog, "manar")
    assert told["differs"]["gaussian/float32"] == "rounds differently (without AVX2 there)"
    assert "gaussian/uint8" not in told["differs"]
    assert "canny/uint8" not in told["differs"]
    assert told_by(fog, "eya")["differs"] == {}
    lines = fog.command("devices").stdout.splitlines()
    (remark,) = (line for line in lines if " gets no tiles for " in line)
    # Which others differ depends on the processor: on some, bilateral does.
    assert remark.startswith("manar gets no tiles for ")
    assert ", gaussian/float32, gray/float32, " in remark
    assert remark.endswith(": it rounds differently (without AVX2 there)")


def test_a_job_that_it_alone_could_do_says_what_it_lacks(fog: Fog) -> None:
    with fog_at(fog.folder / "alone", fog.broker, WIRE__PREFIX="prints-alone") as alone:
        alone.folder.mkdir()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OPENCV_CPU_DISABLE", "AVX2,FMA3")
            alone.device("oumayma").says("oumayma is online")
        ran = alone.run(
            *(fog.folder / "in.png", "-o", "float.tiff", "--timeout", "2", "--pipeline", FLOAT),
            code=1,
            GATEWAY__LOCAL_AFTER="0.5",
        )
    assert "oumayma lacks gaussian/float32: rounds differently (without AVX2 there)" in ran.err, (
        ran.err
    )


def test_speed_and_versions_are_announced(fog: Fog) -> None:
    told = told_by(fog, "manar")
    found: ConformanceReport = local_report()
    assert set(told["rates"]) == set(found.rates)
    assert told["versions"]["opencv"] == cv2.__version__
    assert "AVX2" not in told["versions"]["cpu"].split()
