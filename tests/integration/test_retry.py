"""A failed job is stored and announced, and a retry succeeds once the fault is fixed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.images.spec import Image
from tests.misbehaving import install
from tests.processes import Fog, Program, photo, private_fog, same, until

pytestmark = pytest.mark.broker

DEAD = "fog/v1/gateways/mariem/dead"
REPLIES = "fog/v1/replies/me"


@pytest.fixture
def fog(broker: object, tmp_path: Path) -> Iterator[Fog]:
    del broker
    settings = {"TILES": "grid 2x2", "SCHEDULER__MAX_FAILURES": "2", "GATEWAY__LOCAL": "never"}
    with private_fog(tmp_path, **settings, GATEWAY__DELIVER="reply") as made:
        made.path = install(tmp_path)
        (tmp_path / "fog.yaml").write_text("pipelines: {bad: misbehave how=raises}\n")
        yield made


def poison() -> Image:
    image = np.maximum(photo(240, 320), 14)
    image[0, 0] = 13
    return image


def break_operator(fog: Fog) -> Path:
    """Make the operator raise until a file exists; returns that file."""
    fixed = fog.folder / "fixed"
    raises = 'raise ValueError("boom \\ud800")'
    module = fog.folder / "plugged" / "misbehaving_operators.py"
    check = f"if os.path.exists({str(fixed)!r}): return 255 - image\n        {raises}"
    module.write_text(module.read_text().replace(raises, check))
    return fixed


def poisoned(fog: Fog) -> tuple[Path, Path, Program]:
    """The file that fixes the operator, an image on which it fails, a gateway with two devices."""
    fixed = break_operator(fog)
    image = fog.save("in.png", poison())
    fog.fleet("eya", "oumayma")
    gateway = fog.serve_with(fog.folder / "fog.yaml")
    gateway.says("mariem is online")
    return fixed, image, gateway


def test_a_failing_job_is_announced_and_stored_and_its_retry_succeeds(fog: Fog) -> None:
    fixed, image, _ = poisoned(fog)
    with fog.probe(DEAD, f"{REPLIES}/#", client_id="me") as me:
        me.publish("fog/v1/submit/bad/me", image.read_bytes())
        announced = json.loads(me.message(DEAD, within=60).payload)
        assert "boom" in announced["reason"]
        folder = Path(announced["folder"])
        assert (folder / "image").read_bytes() == image.read_bytes()
        note = json.loads((folder / "note.json").read_bytes())
        assert note["entry"]["pipeline"] == "misbehave how=raises"
        assert "in raises" in note["failures"][0]["traceback"]
        listed = fog.command("retry")
        assert announced["job"] in listed.stdout
        fixed.touch()
        assert fog.command("retry", announced["job"]).returncode == 0
        answer = me.message(f"{REPLIES}/image", within=60)
    got = cv2.imdecode(np.frombuffer(answer.payload, np.uint8), cv2.IMREAD_UNCHANGED)
    assert got is not None
    assert same(got, 255 - poison())
    until(lambda: not list((fog.folder / "spool").glob("dead/j*")), "no dead letter")


def test_a_retry_without_a_gateway_is_done_at_its_next_start(fog: Fog) -> None:
    fixed, image, gateway = poisoned(fog)
    with fog.probe(DEAD, f"{REPLIES}/#", client_id="me") as me:
        me.publish("fog/v1/submit/bad/me", image.read_bytes())
        me.message(DEAD, within=60)
        gateway.stop()
        fixed.touch()
        assert fog.command("retry", "--all").returncode == 0
        fog.serve_with(fog.folder / "fog.yaml")
        me.message(f"{REPLIES}/image", within=60)


def test_a_retry_of_an_unknown_job_names_what_is_missing(fog: Fog) -> None:
    missing = fog.command("retry", "j1")
    assert missing.returncode == 2
    assert "there is no folder" in missing.stderr
    (fog.folder / "spool").mkdir()
    missing = fog.command("retry", "j1")
    assert missing.returncode == 2
    assert "no dead letter 'j1'" in missing.stderr
    assert "no dead letters in" in fog.command("retry").stdout
