"""What the command loads before it has to: each import delays the first tile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What `--help` has no use for.
HELP_FREE = {"asyncio", "cv2", "fogmqtt.config", "msgspec", "numpy", "paho", "PIL", "rich", "yaml"}
#: What a decoder's process loads, and not the one that starts it.
DECODER_FREE = {"asyncio", "cv2", "numpy", "paho", "PIL", "rich", "simplejpeg", "tifffile"}
#: What `run` has no use for before its first tile is sent.
RUN_FREE = {
    "PIL",
    "cv2",
    "fogmqtt.cli.demo",
    "fogmqtt.cli.explain",
    "fogmqtt.cli.simulate",
    "fogmqtt.conformance.fingerprint",
    "fogmqtt.gateway.server",
    "fogmqtt.gateway.storage.journal_db",
    "fogmqtt.simulate",
    "inotify_simple",
    "rich",
    "simplejpeg",
    "sqlite3",
    "tifffile",
    "yaml",
}


def loaded(program: str, folder: Path) -> set[str]:
    """The modules that a new interpreter has loaded when it prints them."""
    environment = {**os.environ, "FOGMQTT_BROKER__EMBEDDED": "never"}
    command = [sys.executable, "-c", f"import sys\n{program}"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=folder, env=environment
    )
    return set(done.stdout.split("loaded: ")[1].split())


def test_help_loads_next_to_nothing(tmp_path: Path) -> None:
    program = (
        "import atexit; atexit.register(lambda: print('loaded:', *sys.modules)); "
        "from fogmqtt.cli.gateway import main; main(['--help'])"
    )
    assert not loaded(program, tmp_path) & HELP_FREE


def test_the_first_decoder_is_started_before_the_large_imports(tmp_path: Path) -> None:
    program = "import fogmqtt.gateway.jobs.decode; print('loaded:', *sys.modules)"
    assert not loaded(program, tmp_path) & DECODER_FREE


@pytest.mark.parametrize("pipeline", ["invert", "gray | canny"])
def test_run_loads_only_what_a_job_needs(pipeline: str, tmp_path: Path) -> None:
    program = f"""
import fogmqtt.cli.async_program as program

def stop(job):
    job.close()
    print("loaded:", *sys.modules)
    sys.exit()

program.run_async = stop
from fogmqtt.cli.gateway import main

main(["run", "photo.png", "-o", "out.png", "--pipeline", {pipeline!r}])
"""
    assert not loaded(program, tmp_path) & RUN_FREE
