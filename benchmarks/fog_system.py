"""Ours as a system under measurement: a gateway, devices and a broker, `local: never`.

It also drives other revisions, by the `client.py` in their own folder of benchmarks; those up to
4af56b5 have none that opens a gateway, so `_old_gateway` does that for them.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import client  # with --checkout, that of the other revision
from photo import photo
from system import Done, System, Task

from fogmqtt.cli.demo import device_process, free_port
from fogmqtt.transport.embedded import EmbeddedBroker

Run = Callable[[object, str], Any]


@dataclass(frozen=True)
class Fog:
    """Runs jobs, and returns their outcomes."""

    outcome: Run

    def prepare(self, task: Task) -> None:
        photo(task.megapixels)

    def run(self, task: Task) -> Done:
        outcome = self.outcome(photo(task.megapixels), task.pipeline)
        assert outcome.error is None, outcome.error
        report = outcome.report
        return Done(outcome.image, report.tiles, report.bytes_back // report.tiles)


@contextmanager
def start(_name: str, workers: int, _speeds: tuple[float, ...]) -> Iterator[System]:
    """Start broker, devices and gateway, and wait until all devices are ready."""
    tuning = "process_tuning" if importlib.util.find_spec("fogmqtt.process_tuning") else "tuning"
    importlib.import_module(f"fogmqtt.{tuning}").tune()
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        for number in range(workers):
            stack.enter_context(device_process(f"d{number}", broker.url))
        open_gateway = _gateway if hasattr(client, "gateway_at") else _old_gateway
        yield Fog(stack.enter_context(open_gateway(broker.url, workers)))


@contextmanager
def _gateway(url: str, devices: int) -> Iterator[Run]:
    with client.gateway_at(url, devices) as gateway:
        yield lambda image, pipeline: gateway.run(client.JobRequest("bench", pipeline, image=image))


@contextmanager
def _old_gateway(url: str, devices: int) -> Iterator[Run]:
    """Open a gateway as revisions up to 4af56b5 do."""
    connector = importlib.import_module("fogmqtt.cli.connect").connector
    config_module = importlib.import_module("fogmqtt.config")
    config = config_module.GatewayConfig()
    config = replace(
        config,
        broker=config_module.Broker(url=url, embedded="never"),
        gateway=replace(config.gateway, local="never"),
    )
    service = importlib.import_module("fogmqtt.gateway.service")
    gateway = service.Gateway(config, "bench", connector(config.broker, "bench"))

    def run(image: object, pipeline: str) -> Any:
        submitter = client.Client()
        gateway.submit(client.JobRequest("bench", pipeline, submitter, image=image))
        gateway.run(lambda: gateway.conductor.idle)
        return submitter.outcome

    try:
        gateway.transport.start()
        gateway.chores.append(lambda moment: moment + 0.05)
        gateway.run(lambda: len(gateway.roster.present()) == devices)
        gateway.chores.pop()
        yield run
    finally:
        gateway.close()
