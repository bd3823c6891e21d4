"""A password works from every place it may come from, and no place shows it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fog import need
from tests.processes import Fog, edges_of, photo, private_fog, read, same

pytestmark = pytest.mark.broker

SECRET = "s3kr1t-Pässwort"


@pytest.fixture(scope="module")
def locked(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """A broker that wants a password, and one device that knows it."""
    del broker  # skips or fails where Mosquitto is missing
    need(shutil.which("mosquitto_passwd"), "mosquitto_passwd", "sudo apt install mosquitto")
    folder = tmp_path_factory.mktemp("locked")
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    for user in ("mariem", "eya"):
        command = ["mosquitto_passwd", "-b", str(passwords), user, SECRET]
        subprocess.run(command, check=True, capture_output=True)
    with private_fog(
        folder, f"password_file {passwords}\nper_listener_settings false", BROKER__USERNAME="mariem"
    ) as fog:
        fog.save("in.png", photo(90, 120))
        device = fog.device("eya", BROKER__USERNAME="eya", BROKER__PASSWORD=SECRET)
        device.says("eya is online")
        yield fog
        assert SECRET not in device.said


def said_everything(fog: Fog, *arguments: str, code: int, **settings: str) -> str:
    ran = fog.command("-vv", "run", "in.png", "-o", "out.png", *arguments, **settings)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    assert SECRET not in ran.stderr + ran.stdout
    return ran.stderr


def test_a_password_from_the_environment_works_and_is_not_shown(locked: Fog) -> None:
    said_everything(locked, code=0, BROKER__PASSWORD=SECRET)
    assert same(read(locked.folder / "out.png"), edges_of(locked.folder / "in.png"))


def test_a_password_from_a_file_works_and_is_not_shown(locked: Fog, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n", "utf-8")
    said_everything(locked, code=0, BROKER__PASSWORD_FILE=str(tmp_path / "password"))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_wrong_password_ends_with_3_and_is_not_shown(locked: Fog, protocol: str) -> None:
    wrong = SECRET + "-not"
    said = said_everything(locked, code=3, BROKER__PASSWORD=wrong, BROKER__PROTOCOL=protocol)
    assert said.splitlines()[-1].startswith("error: ")
    assert "password" in said.splitlines()[-1]


def test_a_wrong_setting_beside_the_password_does_not_show_it(locked: Fog) -> None:
    config = locked.folder / "bad.yaml"
    config.write_text(f"broker:\n  pasword: {SECRET}\n", "utf-8")
    ran = locked.command("--config", str(config), "devices")
    assert ran.returncode == 2
    assert "did you mean broker.password?" in ran.stderr
    assert SECRET not in ran.stderr


def test_no_command_line_and_no_topic_holds_the_password(locked: Fog) -> None:
    serving = locked.serve(BROKER__PASSWORD=SECRET)
    command = " ".join(psutil.Process(serving.process.pid).cmdline())
    assert SECRET not in command
    locked.settings["BROKER__PASSWORD"] = SECRET
    try:
        listed = locked.command("devices", "--json")
    finally:
        del locked.settings["BROKER__PASSWORD"]
    assert '"online": true' in listed.stdout
    assert SECRET not in listed.stdout
    assert serving.stop() == 0
    assert SECRET not in serving.said
