"""A device whose OpenCV rounds differently gets no tiles of such operators, and is named.

Its OpenCV is the same one, told to leave AVX2 and FMA alone: sums of floats round differently.
Which ones depends on the processor, and on an old one none does. So the test examines both, and
its expectations follow from that. A device that a client plays differs on every processor.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from fogmqtt.conformance.report import ConformanceReport
from fogmqtt.images.spec import Image
from fogmqtt.wire.messages import DeviceInfo, encode
from tests.conformance import local_report
from tests.fog import RealBroker
from tests.processes import PATIENCE_S, Fog, fog_at, photo, read, same

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="OpenCV for ARM cannot be told to round differently"
)

_DISABLED = os.environ.get("OPENCV_CPU_DISABLE")
#: What another processor is played with, which lacks AVX2 and FMA besides.
OTHER = ("OPENCV_CPU_DISABLE", ",".join(filter(None, (_DISABLED, "AVX2,FMA3"))))
FLOAT = "gray | tofloat | gaussian ksize=9"
#: What devices need for it: the gateway does `gray` while it cuts.
FLOAT_NEEDS = ("tofloat/uint8", "gaussian/float32")


@pytest.fixture(scope="module")
def fog(broker: RealBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """`eya` rounds as the gateway does, `manar` does not; both are slow enough to share."""
    local_report()  # the first start on a machine takes longer, which is not the point
    with fog_at(tmp_path_factory.mktemp("prints"), broker, WIRE__PREFIX="prints") as made:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv(*OTHER)
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


@cache
def there() -> ConformanceReport:
    """The examination of this machine with the other processor, by a process of the test's own."""
    code = (
        "import sys, msgspec; from tests.conformance import local_report; "
        "sys.stdout.buffer.write(msgspec.json.encode(local_report()))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env=os.environ | dict([OTHER]),
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=True,
    )
    return msgspec.json.decode(told.stdout, type=ConformanceReport)


def differing() -> set[str]:
    """The abilities that the two round differently."""
    ours, theirs = local_report().fingerprints, there().fingerprints
    assert ours.keys() == theirs.keys()
    return {ability for ability, one in ours.items() if theirs[ability] != one}


def why() -> str:
    """What the two processors differ in, as people are told."""
    ours, theirs = (set(found.versions["cpu"].split()) for found in (local_report(), there()))
    assert theirs <= ours
    return f"rounds differently (without {' '.join(sorted(ours - theirs))} there)"


def remark(device: str, abilities: set[str], reason: str) -> str:
    """The line about a device; an operator that differs in all its abilities is only named."""
    names = {ability.partition("/")[0] for ability in abilities}
    known = local_report().fingerprints
    every = {name: {one for one in known if one.startswith(f"{name}/")} for name in names}
    shown = [
        one
        for name in sorted(names)
        for one in ([name] if every[name] <= abilities else sorted(every[name] & abilities))
    ]
    return f"{device} gets no tiles for {', '.join(shown)}: it {reason}"


def remarks(fog: Fog, device: str) -> list[str]:
    lines = fog.command("devices").stdout.splitlines()
    return [line for line in lines if line.startswith(f"{device} gets no tiles for ")]


def able(*abilities: str) -> set[str]:
    """Who gets tiles that need these."""
    return {"eya"} if differing() & set(abilities) else {"eya", "manar"}


def expected(fog: Fog) -> Image:
    gray = cv2.cvtColor(read(fog.folder / "in.png"), cv2.COLOR_BGR2GRAY)
    return cv2.GaussianBlur(gray.astype(np.float32) / np.float32(255), (9, 9), 0)


def test_it_gets_no_tiles_of_what_it_rounds_differently(fog: Fog) -> None:
    ran = fog.run(
        *(fog.folder / "in.png", "-o", "float.tiff"),
        *("--pipeline", FLOAT, "--tiles", "size 64x64", "--verify"),
    )
    assert set(ran.report["devices"]) == able(*FLOAT_NEEDS)
    assert same(read(fog.folder / "float.tiff"), expected(fog))


def test_it_does_its_share_of_everything_else(fog: Fog) -> None:
    ran = fog.run(
        *(fog.folder / "in.png", "-o", "edges.png"),
        *("--pipeline", "gaussian | gray | canny", "--tiles", "size 64x64", "--verify"),
    )
    assert set(ran.report["devices"]) == able("gaussian/uint8", "gray/uint8", "canny/uint8")
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
    assert told_by(fog, "eya")["differs"] == {}
    assert told_by(fog, "manar")["differs"] == dict.fromkeys(differing(), why())
    wanted = [remark("manar", differing(), why())] if differing() else []
    assert remarks(fog, "manar") == wanted


def test_whoever_announces_another_fingerprint_is_named_on_every_processor(fog: Fog) -> None:
    wrong = {"gaussian/float32", "canny/uint8"}
    info = DeviceInfo(
        boot="played",
        sequence=1,
        uptime_s=1.0,
        workers=1,
        operators=list(local_report().operators),
        fingerprints=local_report().fingerprints | dict.fromkeys(wrong, "0123456789abcdef"),
        versions=local_report().versions,
    )
    with fog.probe(client_id="played") as client:
        client.publish("prints/devices/played/info", encode(info), retain=True)
        client.publish("prints/devices/played/status", b"online", retain=True)
        assert told_by(fog, "played")["differs"] == dict.fromkeys(wrong, "rounds differently")
        assert remarks(fog, "played") == [remark("played", wrong, "rounds differently")]
        for leaf in ("info", "status"):
            client.publish(f"prints/devices/played/{leaf}", b"", retain=True)


def test_a_job_that_it_alone_could_do_says_what_it_lacks(fog: Fog) -> None:
    with fog_at(fog.folder / "alone", fog.broker, WIRE__PREFIX="prints-alone") as alone:
        alone.folder.mkdir()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv(*OTHER)
            alone.device("oumayma").says("oumayma is online")
        lacks = differing() & set(FLOAT_NEEDS)
        ran = alone.run(
            *(fog.folder / "in.png", "-o", "float.tiff", "--pipeline", FLOAT),
            *(("--timeout", "2") if lacks else ()),
            code=1 if lacks else 0,
            GATEWAY__LOCAL_AFTER="0.5",
        )
    for ability in lacks:
        assert f"oumayma lacks {ability}: {why()}" in ran.err, ran.err
    if not lacks:
        assert set(ran.report["devices"]) == {"oumayma"}


def test_speed_and_versions_are_announced(fog: Fog) -> None:
    told = told_by(fog, "manar")
    assert set(told["rates"]) == set(there().rates)
    assert there().versions.items() <= told["versions"].items()
    assert told["versions"]["opencv"] == cv2.__version__
    assert "AVX2" not in told["versions"]["cpu"].split()
