"""Submissions around a restart of the broker: accepted within a second, and never swallowed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fog import probe, wait_for
from tests.processes import Fog, edges_of, photo, read, same

pytestmark = [pytest.mark.broker, pytest.mark.serial]

EXAMPLE = Path(__file__).parents[3] / "examples" / "submit.py"
#: How long the broker is away.
AWAY_S = 4.0
#: Seconds from the moment when the broker listens again until a submission is accepted.
ACCEPTED_S = 1.0


def example(fog: Fog, *more: str) -> subprocess.Popen[str]:
    """Run the example on `in.png`."""
    return subprocess.Popen(
        [sys.executable, EXAMPLE, "in.png", "out.png", "--port", str(fog.broker.port), *more],
        cwd=fog.folder,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_submission_is_accepted_within_a_second_of_the_brokers_restart(lone_fog: Fog) -> None:
    path = lone_fog.save("in.png", photo(60, 80))
    gateway = lone_fog.serve(GATEWAY__LOCAL="always")
    lone_fog.broker.kill()
    gateway.says("trying again")
    away_until = time.monotonic() + AWAY_S
    wait_for(lambda: time.monotonic() > away_until, within=AWAY_S + 1)
    lone_fog.broker.start()
    back_at = time.monotonic()
    status = "fog/v1/replies/me/status"
    with probe(lone_fog.broker.url, status, client_id="me") as me:
        accepted = False
        while not accepted:
            assert time.monotonic() < back_at + ACCEPTED_S
            me.publish("fog/v1/submit/edges/me", path.read_bytes())
            try:
                message = me.message(status, within=0.1)
            except AssertionError:
                continue  # nobody was there to take it
            accepted = json.loads(message.payload)["state"] == "accepted"
    assert time.monotonic() < back_at + ACCEPTED_S


def test_the_example_submits_again_until_a_gateway_has_accepted_the_image(lone_fog: Fog) -> None:
    path = lone_fog.save("in.png", photo(60, 80))
    submitter = example(lone_fog)
    assert submitter.stderr is not None
    assert submitter.stderr.readline() == "no gateway is there; trying again\n"
    lone_fog.serve(GATEWAY__LOCAL="always")
    _, said = submitter.communicate(timeout=60)
    assert submitter.returncode == 0, said
    states = [line.split()[0] for line in said.splitlines() if not line.startswith("no gateway")]
    assert (states[0], states[-1]) == ("accepted", "done")
    assert same(read(lone_fog.folder / "out.png"), edges_of(path))


def test_the_example_ends_with_the_reason_of_a_failed_job(lone_fog: Fog) -> None:
    lone_fog.folder.joinpath("in.png").write_bytes(b"no image")
    lone_fog.serve(GATEWAY__LOCAL="always")
    submitter = example(lone_fog)
    _, said = submitter.communicate(timeout=60)
    assert submitter.returncode == 1
    assert "failed" in said.splitlines()[-1]
