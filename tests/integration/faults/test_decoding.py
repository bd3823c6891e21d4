"""Whoever ends the process that decodes costs one job: `serve` and `run` go on, and say why."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import time
from collections.abc import Iterator

import cv2
import numpy as np
import psutil
import pytest

from tests.fog import Probe, wait_for
from tests.processes import Fog, Program, edges_of, photo, private_fog, same

pytestmark = pytest.mark.broker

REPLIES = "fog/v1/replies"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def fog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    with private_fog(
        tmp_path_factory.mktemp("fog"), GATEWAY__INBOX="", GATEWAY__LOCAL="always"
    ) as made:
        made.save("in.png", photo())
        yield made


@pytest.fixture(scope="module")
def gateway(fog: Fog) -> Iterator[Program]:
    """One gateway, all along: it lives until it is killed."""
    serving = fog.serve(GATEWAY__SPOOL="spool")
    assert decoders_of(serving.process.pid) == []
    yield serving
    assert "Traceback (most" not in serving.said


@pytest.fixture
def me(fog: Fog, gateway: Program) -> Iterator[Probe]:
    with fog.probe("fog/v1/replies/#", client_id="me") as client:
        yield client


def decoders_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if _decodes(child)]


def _decodes(process: psutil.Process) -> bool:
    try:
        return "workers.decoder_process" in " ".join(process.cmdline())
    except psutil.Error:
        return False  # it has just ended


def submit(me: Probe, fog: Fog) -> str:
    """Returns the reply name."""
    name = f"me-{next(_numbers)}"
    me.publish(f"fog/v1/submit/edges/{name}", (fog.folder / "in.png").read_bytes())
    return name


def error(me: Probe, name: str) -> str:
    while True:
        status = json.loads(me.message(f"{REPLIES}/{name}/status", within=40).payload)
        assert status["state"] != "done"
        if status["state"] == "failed":
            return str(status["error"])


def is_exact(me: Probe, fog: Fog, name: str) -> None:
    payload = me.message(f"{REPLIES}/{name}/image", within=40).payload
    got = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED)
    assert got is not None
    assert same(got, edges_of(fog.folder / "in.png"))


def at_work(gateway: Program, me: Probe, fog: Fog) -> tuple[psutil.Process, str]:
    """A decoder that does not get on with the image of a job, and the job's reply name."""
    is_exact(me, fog, submit(me, fog))
    for process in decoders_of(gateway.process.pid):
        process.suspend()
    name = submit(me, fog)
    wait_for(lambda: _reads(gateway), within=30, what="the image to be opened")
    return decoders_of(gateway.process.pid)[0], name


def _reads(gateway: Program) -> bool:
    files = psutil.Process(gateway.process.pid).open_files()
    return any(file.path.endswith(".image") for file in files)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_decoder_that_dies_fails_its_job_by_name_and_the_next_is_exact(
    number: signal.Signals, fog: Fog, gateway: Program, me: Probe
) -> None:
    process, name = at_work(gateway, me, fog)
    process.send_signal(number)
    if number != signal.SIGKILL:  # which alone ends a stopped process at once
        process.send_signal(signal.SIGCONT)
    reason = f"its decoder was ended by signal {number} ({number.name})"
    assert f"submit/edges/{name}: {reason}" in error(me, name)
    is_exact(me, fog, submit(me, fog))


def test_jobs_go_on_while_a_decoder_hangs(fog: Fog, gateway: Program, me: Probe) -> None:
    process, name = at_work(gateway, me, fog)
    is_exact(me, fog, submit(me, fog))
    process.send_signal(signal.SIGCONT)
    is_exact(me, fog, name)


def test_no_decoder_outlives_a_killed_gateway(fog: Fog, gateway: Program, me: Probe) -> None:
    process, name = at_work(gateway, me, fog)
    left = decoders_of(gateway.process.pid)
    gateway.kill()
    assert process in left
    assert psutil.wait_procs(left, timeout=10)[1] == []
    again = fog.serve(GATEWAY__SPOOL="spool")
    is_exact(me, fog, name)
    assert again.stop() == 0


def test_run_says_what_ended_the_decoder(fog: Fog) -> None:
    running = fog.start_run(fog.folder / "in.png", "-o", "out.png", "--pipeline", "gray")
    found = wait_for(lambda: _soon(running.process), within=30, what="its decoder")
    found.kill()
    assert running.ended() == 1
    assert "error: in.png: its decoder was ended by signal 9 (SIGKILL)" in running.said
    assert not (fog.folder / "out.png").exists()


def _soon(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    """Its decoder, at its start."""
    for found in decoders_of(process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.suspend()
            return found
    time.sleep(0)
    return None
