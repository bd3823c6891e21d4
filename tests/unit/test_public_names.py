"""What users import from `fogmqtt`, and what that import costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fogmqtt
from fogmqtt.client.connection import connect
from fogmqtt.client.fog import Fog
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.jobs.model import JobHandle, JobRequest, Outcome
from fogmqtt.gateway.thread_door import GatewayThread


def loaded_after(code: str) -> set[str]:
    """The modules that a new interpreter has loaded after running `code`."""
    program = f"import sys; {code}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_the_public_names_are_those_of_their_modules() -> None:
    assert fogmqtt.connect is connect
    assert fogmqtt.Fog is Fog
    assert fogmqtt.Gateway is Gateway
    assert fogmqtt.GatewayThread is GatewayThread
    assert fogmqtt.JobHandle is JobHandle
    assert fogmqtt.JobRequest is JobRequest
    assert fogmqtt.Outcome is Outcome


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    for name in fogmqtt.__all__:
        assert getattr(fogmqtt, name).__name__ == name
    assert set(fogmqtt.__all__) <= set(dir(fogmqtt))


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fogmqtt' has no attribute 'Gatway'"):
        _ = fogmqtt.Gatway  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_after("import fogmqtt")
    assert {"asyncio", "numpy", "cv2", "msgspec", "fogmqtt.gateway"} & loaded == set()


def test_an_error_loads_nothing_heavy() -> None:
    loaded = loaded_after("import fogmqtt; fogmqtt.FogError")
    assert {"asyncio", "numpy", "cv2", "msgspec", "fogmqtt.gateway"} & loaded == set()


def test_connecting_loads_neither_bars_nor_dask() -> None:
    loaded = loaded_after("import fogmqtt; fogmqtt.connect('local').close()")
    assert {"rich", "tqdm", "dask", "IPython", "PIL"} & loaded == set()


def test_a_public_name_loads_its_module() -> None:
    assert "fogmqtt.gateway.app" in loaded_after("from fogmqtt import Gateway")
