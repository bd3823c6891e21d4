"""fogmqtt: the boards you own as one dependable image processor over plain MQTT.

    import fogmqtt

    with fogmqtt.connect("config.yaml") as fog:
        edges = fog.run("photo.jpg", "gray | canny low=50 high=150")

`connect("local")` needs no broker and no device. An asyncio program uses `aconnect`. Programs that
need the gateway itself use `Gateway`, or `GatewayThread` outside its event loop.

The names below are loaded when they are first used, so that `import fogmqtt` loads nothing else:
a device imports this package and has no use for asyncio, and little memory for NumPy and OpenCV.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # type checkers know the name, and `typing` is slow to load
if TYPE_CHECKING:
    from fogmqtt.client.async_fog import AsyncFog
    from fogmqtt.client.connection import aconnect, connect
    from fogmqtt.client.fleet import Device, Devices
    from fogmqtt.client.fog import Fog
    from fogmqtt.client.future import JobFuture, JobProgress
    from fogmqtt.client.report import JobReport
    from fogmqtt.errors import (
        ConfigError,
        FogError,
        ImageError,
        JobFailed,
        JobTimedOut,
        NoBroker,
        OperatorError,
        PipelineError,
        TransportError,
        UsageError,
    )
    from fogmqtt.gateway.app import Gateway
    from fogmqtt.gateway.jobs.model import JobHandle, JobRequest, Outcome
    from fogmqtt.gateway.thread_door import GatewayThread

__all__ = [
    "AsyncFog",
    "ConfigError",
    "Device",
    "Devices",
    "Fog",
    "FogError",
    "Gateway",
    "GatewayThread",
    "ImageError",
    "JobFailed",
    "JobFuture",
    "JobHandle",
    "JobProgress",
    "JobReport",
    "JobRequest",
    "JobTimedOut",
    "NoBroker",
    "OperatorError",
    "Outcome",
    "PipelineError",
    "TransportError",
    "UsageError",
    "aconnect",
    "connect",
]

__version__ = "0.1.0"

# Intel's IPP rounds differently from OpenCV's own code, so a fleet with and without it would
# disagree about pixels. OpenCV reads this once, when cv2 is first imported; every program of
# ours imports this package before that.
os.environ["OPENCV_IPP"] = "disabled"
# OpenCV 5 warns about that choice on stderr at its first use; errors it still prints.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

#: The module of each public name.
_MODULES = {
    "AsyncFog": "fogmqtt.client.async_fog",
    "ConfigError": "fogmqtt.errors",
    "Device": "fogmqtt.client.fleet",
    "Devices": "fogmqtt.client.fleet",
    "Fog": "fogmqtt.client.fog",
    "FogError": "fogmqtt.errors",
    "Gateway": "fogmqtt.gateway.app",
    "GatewayThread": "fogmqtt.gateway.thread_door",
    "ImageError": "fogmqtt.errors",
    "JobFailed": "fogmqtt.errors",
    "JobFuture": "fogmqtt.client.future",
    "JobHandle": "fogmqtt.gateway.jobs.model",
    "JobReport": "fogmqtt.client.report",
    "JobRequest": "fogmqtt.gateway.jobs.model",
    "JobTimedOut": "fogmqtt.errors",
    "NoBroker": "fogmqtt.errors",
    "OperatorError": "fogmqtt.errors",
    "Outcome": "fogmqtt.gateway.jobs.model",
    "PipelineError": "fogmqtt.errors",
    "JobProgress": "fogmqtt.client.future",
    "TransportError": "fogmqtt.errors",
    "UsageError": "fogmqtt.errors",
    "aconnect": "fogmqtt.client.connection",
    "connect": "fogmqtt.client.connection",
}


if not TYPE_CHECKING:  # a type checker would take every name for a public one

    def __getattr__(name: str) -> object:
        """Load a public name. Raises AttributeError for any other."""
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        value = getattr(importlib.import_module(module), name)
        globals()[name] = value  # the next use finds it without this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
