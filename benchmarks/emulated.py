"""Emulated fleets: real `fog-device` processes with a limited speed, and a real broker."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from subprocess import Popen
from typing import Any

import numpy as np
from photo import MP

from fogmqtt.cli.demo import device_process, free_port
from fogmqtt.transport.embedded import EmbeddedBroker

EIGHT = (1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.1)
#: The factor of a speed that drops.
DROP = 0.1


@dataclass(frozen=True)
class Case:
    """Speeds in pixels per second, and the fault of the first device in the middle of a job."""

    name: str
    speeds: tuple[float, ...]
    megapixels: int
    limit: float
    #: "", "killed" or "drops". It happens after half of the ideal time of a job without a fault.
    fault: str = ""

    @property
    def pixels(self) -> int:
        return self.megapixels * MP

    @property
    def fault_s(self) -> float:
        return 0.5 * self.pixels / sum(self.speeds)

    @property
    def ideal_s(self) -> float:
        """Seconds for all pixels if every device works all the time until its fault."""
        if not self.fault:
            return self.pixels / sum(self.speeds)
        rest = sum(self.speeds[1:]) + (DROP * self.speeds[0] if self.fault == "drops" else 0.0)
        return self.fault_s + (self.pixels - sum(self.speeds) * self.fault_s) / rest

    @property
    def slug(self) -> str:
        return self.name.replace(",", "").replace(" ", "-")


def _times(factor: float, speeds: tuple[float, ...] = EIGHT) -> tuple[float, ...]:
    return tuple(speed * factor * MP for speed in speeds)


_LAB = _times(1, tuple(np.random.default_rng(1).uniform(0.2, 2.0, 64)))
CASES = (
    Case("three equal", (5 * MP,) * 3, 24, 1.05),
    Case("eight", _times(5), 24, 1.05),
    Case("eight, fast", _times(20), 24, 1.25),
    Case("three, one slow", _times(5, (1, 1, 0.3)), 24, 1.05),
    Case("eight, one drops", _times(5), 24, 1.10, "drops"),
    Case("eight, one killed", _times(5), 24, 1.10, "killed"),
    Case("64 random", _LAB, 400, 1.05),
)


@dataclass(frozen=True)
class Emulated:
    """A broker and a process for each device, in the order of the case's speeds."""

    url: str
    devices: dict[str, Popen[bytes]]


@contextmanager
def fleet(case: Case) -> Iterator[Emulated]:
    """Start the broker and the devices. The devices may not be online yet."""
    os.environ["FOGMQTT_DEVICE__WORKERS"] = "1"
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        devices = {}
        for number, speed in enumerate(case.speeds):
            name = f"d{number:02}-{speed / MP:.3g}mp".replace(".", "_")
            speeds = f"{speed},{speed * DROP}" if case.fault == "drops" else f"{speed}"
            process = device_process(name, broker.url, "--emulate-speed", speeds)
            devices[name] = stack.enter_context(process)
        yield Emulated(broker.url, devices)


@contextmanager
def fault(case: Case, emulated: Emulated) -> Iterator[None]:
    """Let the fault of the case happen during the block."""
    with later(case, lambda: strike(case, next(iter(emulated.devices.values())))):
        yield


def strike(case: Case, victim: Popen[bytes]) -> None:
    """Cause the fault at once."""
    victim.send_signal(signal.SIGKILL if case.fault == "killed" else signal.SIGUSR1)


def restore(case: Case, emulated: Emulated) -> None:
    """Restore the speed of a device whose speed dropped."""
    if case.fault == "drops":
        strike(case, next(iter(emulated.devices.values())))


@contextmanager
def later(case: Case, happen: Callable[[], Any]) -> Iterator[None]:
    """Call `happen` at the time of the case's fault, if it has one."""
    if not case.fault:
        yield
        return
    timer = threading.Timer(case.fault_s, happen)
    timer.start()
    try:
        yield
    finally:
        timer.join()
