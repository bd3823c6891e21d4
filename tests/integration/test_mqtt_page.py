"""The lines of docs/mqtt.md, run as they are with the clients of Mosquitto."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest

from fogmqtt.images.spec import Image
from tests.fog import need
from tests.processes import Fog, edges_of, photo, read, same

pytestmark = pytest.mark.broker

PAGE = Path(__file__).parents[2] / "docs/mqtt.md"
SECTIONS = dict(
    re.findall(r"^## (.+?)\n.*?```sh\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def at(fog: Fog) -> Fog:
    """A gateway that serves, and the folder of a user with the photograph of the page."""
    need(shutil.which("mosquitto_rr"), "mosquitto-clients", "sudo apt install mosquitto-clients")
    # Where the clients read options that would otherwise be on each line of the page.
    for client in ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr"):
        (fog.folder / client).write_text(f"-p {fog.broker.port}\n")
    assert cv2.imwrite(str(fog.folder / "photo.jpg"), photo())
    fog.serve()
    return fog


def run(at: Fog, heading: str) -> None:
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", SECTIONS[heading]],
        cwd=at.folder,
        env={**os.environ, "XDG_CONFIG_HOME": str(at.folder)},
        check=True,
        timeout=60,
    )


def expected(at: Fog) -> Image:
    return edges_of(at.folder / "photo.jpg")


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("A question and its answer", "edges.png"),
        ("The same on MQTT 3.1.1", "edges-311.png"),
        ("Send text", "edges-text.png"),
    ],
)
def test_lines_that_fetch_the_result_write_its_file(at: Fog, heading: str, file: str) -> None:
    run(at, heading)
    assert same(read(at.folder / file), expected(at))


def test_the_progress_is_one_line_for_each_status(at: Fog) -> None:
    run(at, "Watch the progress")
    states = [json.loads(line) for line in (at.folder / "states.txt").read_text().splitlines()]
    assert (states[0]["state"], states[-1]["state"]) == ("accepted", "done")
    assert {state["tag"] for state in states} == {"8"}


def test_a_cancellation_without_a_job_is_answered(at: Fog) -> None:
    run(at, "Cancel")
    status = json.loads((at.folder / "cancelled.txt").read_text())
    assert status["state"] == "unknown"
    assert "has no unfinished job with the tag '7' of 'me'" in status["error"]


def test_the_trace_comes_back(at: Fog) -> None:
    run(at, "Make it part of a trace")
    assert f"traceparent:{TRACE}" in (at.folder / "trace.txt").read_text()


def test_every_block_of_the_page_is_tested() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [heading for heading in SECTIONS if f'"{heading}"' not in source] == []
    assert PAGE.read_text("utf-8").count("```sh") == len(SECTIONS)
