"""The key `plugins`: modules and files with more operators."""

from __future__ import annotations

from pathlib import Path

import pytest

from fogmqtt.config import load_device, load_gateway
from fogmqtt.errors import ConfigError


def config_file(folder: Path, plugins: str) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / "fog.yaml"
    config.write_text(f"plugins: {plugins}", "utf-8")
    return config


def test_a_path_is_relative_to_the_configuration_and_a_name_is_a_module(
    tmp_path: Path,
) -> None:
    (tmp_path / "ops.py").touch()
    config = config_file(tmp_path, "[json, ./ops.py]")
    assert load_gateway(config, {}).plugins == ("json", str(tmp_path / "ops.py"))
    assert load_device(config, {}).plugins == ("json", str(tmp_path / "ops.py"))


@pytest.mark.parametrize("text", ["json, ops.py", "[json, ops.py]", " json,ops.py, "])
def test_paths_of_the_environment_are_relative_to_the_working_directory(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ops.py").touch()
    monkeypatch.chdir(tmp_path)
    config = config_file(tmp_path / "etc", "[other.py]")
    found = load_gateway(config, {"FOGMQTT_PLUGINS": text}).plugins
    assert found == ("json", str(tmp_path / "ops.py"))


def test_an_empty_variable_means_no_plug_ins(tmp_path: Path) -> None:
    config = config_file(tmp_path, "[other.py]")
    assert load_gateway(config, {"FOGMQTT_PLUGINS": ""}).plugins == ()


@pytest.mark.parametrize(
    ("plugins", "suggestion"),
    [
        ("[ops/vignette.py]", "there is no file .*ops/vignette.py; give a path relative to"),
        ("[no_such_ops]", "no module 'no_such_ops' is installed here; install its package"),
        ("[json.no_such_ops]", "no module 'json.no_such_ops' is installed here"),
        ("[no_such.ops]", "no module 'no_such.ops' is installed here"),
        ("my_ops", "expected a list of texts, as in .one, two., got 'my_ops'"),
        ("[1]", "expected a list of texts"),
    ],
)
def test_a_gateway_refuses_a_missing_plug_in_with_key_value_and_suggestion(
    plugins: str, suggestion: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"fog.yaml: plugins: {suggestion}"):
        load_gateway(config_file(tmp_path, plugins), {})


def test_a_device_starts_without_a_missing_plug_in(tmp_path: Path) -> None:
    config = config_file(tmp_path, "[ops/vignette.py, no_such_ops]")
    assert len(load_device(config, {}).plugins) == 2
