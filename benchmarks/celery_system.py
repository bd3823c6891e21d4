"""Celery as a system under measurement: Redis carries tasks and results, pickled.

Each worker is a process that runs one task at a time and takes no second one before that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from celery import Celery
from peer import Order, process, sheet
from photo import photo
from system import Done, System, Task

from fogmqtt.cli.demo import free_port
from fogmqtt.images.cv import one_thread
from fogmqtt.images.spec import Image

#: The variables by which the workers learn where Redis is, and who they are.
URL, NUMBER = "FOGMQTT_BENCH_REDIS", "FOGMQTT_BENCH_WORKER"
START_TIMEOUT_S = 60.0

_url = os.environ.get(URL, "redis://127.0.0.1")
app = Celery("celery_system", broker=_url, backend=_url)
app.conf.update(
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle"],
    worker_prefetch_multiplier=1,
    result_expires=60,
    broker_connection_retry_on_startup=True,
)


@app.task
def work(pixels: Image, order: Order) -> Image:
    """Run in a worker of Celery."""
    one_thread()
    return process(pixels, order, int(os.environ[NUMBER]))


@dataclass(frozen=True)
class CelerySystem:
    """Sends strips, and pastes the results in the order of the strips."""

    speeds: tuple[float, ...]

    def prepare(self, task: Task) -> None:
        photo(task.megapixels)

    def run(self, task: Task) -> Done:
        whole = sheet(task, self.speeds)
        sent = [(strip, work.delay(strip.pixels, strip.order)) for strip in whole.strips]
        for strip, result in sent:
            whole.paste(strip, result.get())
            result.forget()
        return whole.done()


@contextmanager
def start(_name: str, workers: int, speeds: tuple[float, ...]) -> Iterator[System]:
    """Start Redis and the workers, and wait until all workers answer."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    app.conf.update(broker_url=url, result_backend=url)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="fogmqtt-celery-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        stack.enter_context(_running(redis, folder, {}))
        for number in range(workers):
            options = ["-P", "solo", "-n", f"w{number}@%h", "-l", "ERROR"]
            options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            command = [sys.executable, "-m", "celery", "-A", "celery_system", "worker", *options]
            environment = {
                URL: url,
                NUMBER: str(number),
                "PYTHONPATH": str(Path(__file__).parent),
                # Otherwise Celery refuses to unpickle where root runs it, or warns.
                "C_FORCE_ROOT": "1",
                "PYTHONWARNINGS": "ignore",
            }
            stack.enter_context(_running(command, folder, environment))
        deadline = monotonic() + START_TIMEOUT_S
        while len(app.control.ping(timeout=1.0)) < workers:
            assert monotonic() < deadline, "the workers of Celery do not answer"
            sleep(0.2)
        yield CelerySystem(speeds)


@contextmanager
def _running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
