"""Where a program connects to: configurations, brokers, or this machine alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fogmqtt
from fogmqtt.client.connection import connect
from fogmqtt.config import GatewayConfig
from tests.fog import free_port


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOGMQTT_BROKER__EMBEDDED", "never")
    monkeypatch.setenv("FOGMQTT_BROKER__CONNECT_TIMEOUT_S", "0.3")


def test_config_yaml_of_the_working_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("pipelines: {mine: invert}\npipeline: mine\n")
    with connect("local") as fog:
        assert fog.run(np.zeros((2, 2), np.uint8)).max() == 255
        assert "mine" in fog.pipelines


def test_without_a_file_the_defaults_count() -> None:
    with connect("local") as fog:
        assert set(fog.pipelines) == {"edges"}


def test_a_configuration_is_given_as_a_path_or_as_an_object(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(
        f"broker: {{url: 'mqtt://127.0.0.1:{free_port()}'}}\ngateway: {{local: always}}"
    )
    for where in (path, str(path)):
        with connect(where) as fog:
            assert fog.run(np.zeros((2, 2), np.uint8), "invert").max() == 255
    with connect(GatewayConfig(), broker=f"mqtt://127.0.0.1:{free_port()}") as fog:
        pass


def test_a_machine_that_works_alone_waits_for_a_broker_no_longer_than_it_is_told() -> None:
    Path("config.yaml").write_text(
        f"broker: {{url: 'mqtt://127.0.0.1:{free_port()}'}}\n"
        "gateway: {local: always, local_after: 600}\n"
    )
    with connect() as fog:
        assert fog.run(np.zeros((2, 2), np.uint8), "invert").max() == 255


@pytest.mark.parametrize(
    ("where", "broker", "says"),
    [
        ("locl", None, "locl: there is no such file; give the path of a configuration, 'local'"),
        ("192.168.1.10", None, "the url of a broker such as mqtt://192.168.1.10"),
        (Path("local"), None, "local: there is no such file"),
        ("local", "mqtt://localhost", "'local' works without a broker"),
        ("mqtt://a", "mqtt://b", "both name a broker"),
        ("http://localhost", None, "http://localhost"),
        (None, "nonsense", "does not begin with mqtt://"),
    ],
)
def test_a_place_that_is_none_is_told(where: str | Path, broker: str, says: str) -> None:
    with pytest.raises(fogmqtt.ConfigError, match=says):
        connect(where, broker=broker)


def test_a_wrong_key_is_told_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("pipelnes: {}\n")
    with pytest.raises(fogmqtt.ConfigError, match="did you mean pipelines"):
        connect("local")


def test_no_broker_is_an_error_of_the_system_too() -> None:
    with pytest.raises(OSError, match="nothing listens at") as nobody:
        connect(f"mqtt://127.0.0.1:{free_port()}")
    assert isinstance(nobody.value, fogmqtt.NoBroker)
    assert isinstance(nobody.value, fogmqtt.FogError)


def test_a_broker_of_our_own_is_started_if_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOGMQTT_BROKER__EMBEDDED", "always")
    monkeypatch.setenv("FOGMQTT_BROKER__CONNECT_TIMEOUT_S", "20")
    with connect(f"mqtt://127.0.0.1:{free_port()}") as fog:
        assert [device.id for device in fog.devices()] == ["local"]
