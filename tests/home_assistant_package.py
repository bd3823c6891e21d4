"""Home Assistant itself, in a Debian of its own: it needs a newer Python than our tests.

Called as a program there, it reads discovery payloads as a JSON list, and prints as one how Home
Assistant takes each: a list of complaints.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

#: paho-mqtt is what Home Assistant installs for its MQTT integration; the others are for cameras.
_PACKAGES: Final = "homeassistant paho-mqtt PyTurboJPEG av numpy"
_DEBIAN: Final = ("python3-venv", "python3-dev", "gcc", "libc6-dev", "ca-certificates")


def installed(folder: Path) -> Path:
    """Return a Debian 13 with Home Assistant in `/ha`, which is made once and kept."""
    from tests import containers

    system = folder / "home-assistant"
    if not system.exists():
        part = containers.unpacked(folder / "home-assistant.part", "trixie", _DEBIAN)
        install = f"python3 -m venv /ha && /ha/bin/pip install --quiet --no-cache-dir {_PACKAGES}"
        containers.run_step(containers.ContainerImage(part), install)
        part.rename(system)
    return system


def complaints(system: Path, payloads: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return for each discovery payload what Home Assistant does not accept, or ignores."""
    program = ["/ha/bin/python", "-c", Path(__file__).read_text("utf-8")]
    done = subprocess.run(
        ["chroot", system, "env", "-i", "PATH=/usr/bin:/bin", "HOME=/root", *program],
        input=json.dumps(payloads),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _complaints(payload: dict[str, Any]) -> Iterator[str]:
    """Yield what Home Assistant's own schemas say; this runs beside Home Assistant."""
    schemas = importlib.import_module("homeassistant.components.mqtt.schemas")
    invalid = importlib.import_module("voluptuous").Invalid
    try:
        schemas.DEVICE_DISCOVERY_SCHEMA(payload)
    except invalid as problem:
        yield f"the device: {problem}"
    shared = {key: one for key, one in payload.items() if key != "components"}
    for name, component in payload["components"].items():
        platform = f"homeassistant.components.mqtt.{component['platform']}"
        config = shared | {key: one for key, one in component.items() if key != "platform"}
        try:
            known = importlib.import_module(platform).DISCOVERY_SCHEMA(config)
        except invalid as problem:
            yield f"{name}: {problem}"
            continue
        yield from (f"{name}: {key} is ignored" for key in sorted(config.keys() - known.keys()))


async def _judge(payloads: Sequence[dict[str, Any]]) -> list[list[str]]:
    # Templates are checked in its event loop only.
    home_assistant = importlib.import_module("homeassistant.core").HomeAssistant("/root")
    found = [list(_complaints(one)) for one in payloads]
    await home_assistant.async_stop(force=True)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_judge(json.load(sys.stdin)))))
