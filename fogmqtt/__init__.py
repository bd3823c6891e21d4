"""fogmqtt: the boards you own as one dependable image processor over plain MQTT.

A script processes an image with the devices that are online:

    with GatewayThread(config, "mariem", connector(config.broker, "mariem")) as gateway:
        outcome = gateway.run(JobRequest("photo", "gray | canny", path=Path("photo.png")))
        print(outcome.error or outcome.image.shape)

`config` is a `fogmqtt.config.GatewayConfig`, and `connector` is in `fogmqtt.cli.connect`. An
asyncio program uses `Gateway` in the same way, with `async with`.

The names below are loaded when they are first used, so that `import fogmqtt` loads nothing else:
a device imports this package and has no use for asyncio, and little memory for NumPy and OpenCV.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fogmqtt.gateway.app import Gateway
    from fogmqtt.gateway.jobs.model import JobHandle, JobRequest, Outcome
    from fogmqtt.gateway.thread_door import GatewayThread

__all__ = ["Gateway", "GatewayThread", "JobHandle", "JobRequest", "Outcome"]

__version__ = "0.1.0"

# Intel's IPP rounds differently from OpenCV's own code, so a fleet with and without it would
# disagree about pixels. OpenCV reads this once, when cv2 is first imported; every program of
# ours imports this package before that.
os.environ["OPENCV_IPP"] = "disabled"
# OpenCV 5 warns about that choice on stderr at its first use; errors it still prints.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

#: The module of each public name.
_MODULES = {
    "Gateway": "fogmqtt.gateway.app",
    "GatewayThread": "fogmqtt.gateway.thread_door",
    "JobHandle": "fogmqtt.gateway.jobs.model",
    "JobRequest": "fogmqtt.gateway.jobs.model",
    "Outcome": "fogmqtt.gateway.jobs.model",
}


if not TYPE_CHECKING:  # a type checker would take every name for a public one

    def __getattr__(name: str) -> object:
        """Load a public name. Raises AttributeError for any other."""
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module), name)
        globals()[name] = value  # the next use finds it without this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
