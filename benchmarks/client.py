"""Gateways and jobs of the benchmarks, run by GatewayThread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from fogmqtt.config import BrokerSettings, GatewayConfig
from fogmqtt.config.schema import Mode
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.thread_door import GatewayThread, ThreadDoor
from fogmqtt.images.spec import Image
from fogmqtt.setup.brokers import connector

#: Seconds in which all devices of a benchmark are online and have checked their operators.
_READY_S = 120.0


@contextmanager
def gateway_at(
    url: str,
    devices: int,
    *,
    local: Mode = "never",
    local_after_s: float | None = None,
    scheduler: Callable[[GatewayConfig], Scheduler] | None = None,
    gateway_id: str = "bench",
) -> Iterator[ThreadDoor]:
    """Run a gateway until this number of devices is online and has checked its operators."""
    config = replace(GatewayConfig(), broker=BrokerSettings(url=url, embedded="never"))
    config = replace(config, gateway=replace(config.gateway, local=local))
    if local_after_s is not None:
        config = replace(config, gateway=replace(config.gateway, local_after=local_after_s))
    own_scheduler = None if scheduler is None else scheduler(config)
    with GatewayThread(
        config, gateway_id, connector(config, gateway_id), scheduler=own_scheduler
    ) as door:
        _wait_for(door, devices)
        yield door


def job(gateway: ThreadDoor, image: Image, pipeline: str) -> Report:
    """Run one job and return its report. Raises AssertionError if it fails."""
    outcome = gateway.run(JobRequest("bench", pipeline, image=image))
    assert outcome.error is None, outcome.error
    return outcome.report


def _wait_for(door: ThreadDoor, devices: int) -> None:
    door.wait_until_settled()
    until = time.monotonic() + _READY_S
    while True:
        online = [device for device in door.devices() if device.online]
        checked = not any(device.info.conformance_running for device in online)
        if len(online) == devices and checked:
            return
        assert time.monotonic() < until, f"{len(online)} of {devices} devices are ready"
        time.sleep(0.02)
