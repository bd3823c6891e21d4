"""What a bare board gets: the wheel of the gateway's version, the script, and the service."""

from __future__ import annotations

import configparser
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fogmqtt
from fogmqtt.cli.device import main
from fogmqtt.errors import UsageError
from fogmqtt.joining import units
from fogmqtt.joining.bundle import JoinCode
from fogmqtt.joining.install_script import install_line, install_script
from fogmqtt.joining.versions import TRIAL_S
from fogmqtt.joining.wheel import build_wheel, wheel_name
from tests.fog import need
from tests.unit.test_join_port import make_site

CODE = JoinCode("eya", "A" * 26, "B" * 26)


@pytest.fixture(scope="module")
def wheel() -> bytes:
    return build_wheel()


def test_the_wheel_has_every_file_of_the_package_and_the_same_bytes_each_time(
    wheel: bytes,
) -> None:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
    assert {"fogmqtt/__init__.py", "fogmqtt/joining/join.sh", "fogmqtt/cli/photo.png"} <= names
    assert not [name for name in names if "__pycache__" in name]
    assert build_wheel() == wheel


def test_pip_installs_the_wheel_with_its_programs(wheel: bytes, tmp_path: Path) -> None:
    file = tmp_path / wheel_name()
    file.write_bytes(wheel)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--no-compile"]
    target = tmp_path / "here"
    subprocess.run([*pip, "--target", str(target), str(file)], check=True)
    assert (target / "bin" / "fog-device").exists()
    metadata = (target / f"fogmqtt-{fogmqtt.__version__}.dist-info" / "METADATA").read_text()
    assert f"\nVersion: {fogmqtt.__version__}\n" in metadata
    assert "Requires-Dist: paho-mqtt" in metadata


@pytest.mark.parametrize("host", ["192.168.1.10:8884", "mariem.local:8884", "[fd00::1]:8884"])
def test_the_script_asks_the_host_under_which_it_was_found(tmp_path: Path, host: str) -> None:
    text = install_script(make_site(tmp_path), host)
    assert f"host='{host}'" in text
    assert "@" not in text.replace("$@", "")
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("host", ["", "a'; rm -rf /; '", "a\nb", "$(id)", "x" * 300])
def test_a_host_that_is_none_does_not_reach_the_script(tmp_path: Path, host: str) -> None:
    site = make_site(tmp_path)
    assert f"host='127.0.0.1:{site.settings.join_port}'" in install_script(site, host)


def test_the_line_names_the_key_of_the_gateway(tmp_path: Path) -> None:
    line = install_line(make_site(tmp_path), CODE)
    assert line.startswith("curl -fsSk --pinnedpubkey 'sha256//")
    assert line.endswith(f"/join.sh && sudo sh join.sh {CODE}")


def test_the_line_fails_and_runs_nothing_where_the_script_cannot_be_fetched(tmp_path: Path) -> None:
    need(shutil.which("curl"), "curl", "apt install curl")
    site = make_site(tmp_path / "fog")  # nothing listens at its join port
    line = install_line(site, CODE).replace("sudo sh", "sh")
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7  # curl's: could not connect
    assert "curl: (7)" in done.stderr
    assert not (tmp_path / "join.sh").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["FOG2:x"], "is no code"),
        (["--prefix"], "--prefix needs a folder"),
        (["--prefix", "here"], "give the code"),
        (["--uninstall", "--prefix", "here"], "fogmqtt is not in"),
    ],
)
def test_the_script_says_what_it_needs(tmp_path: Path, arguments: list[str], said: str) -> None:
    script = install_script(make_site(tmp_path / "fog"), "127.0.0.1:8884")
    done = subprocess.run(
        ["sh", "-s", "--", *arguments],
        input=script,
        text=True,
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr


def unit_of(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def test_a_service_is_written_below_a_root_and_taken_away(tmp_path: Path) -> None:
    root = ["service", "install", "--root", str(tmp_path)]
    assert main(["--id", "eya", *root]) == 0
    path = tmp_path / "etc/systemd/system/fog-device.service"
    unit = unit_of(path)
    start = unit["Service"]["ExecStart"]
    assert start.startswith("/bin/sh ")
    assert start.endswith(f"/launch.sh {sys.prefix} /var/lib/fogmqtt {TRIAL_S} --id eya")
    assert "StateDirectory" not in unit["Service"]  # it ends a service on a read-only system
    made = "/usr/bin/install -d -m 0700 -o fogmqtt /var/lib/fogmqtt /var/cache/fogmqtt"
    assert unit["Service"]["ExecStartPre"] == f"-+{made}"
    writes = "-/etc/fogmqtt -/var/lib/fogmqtt -/var/cache/fogmqtt"
    assert unit["Service"]["ReadWritePaths"] == writes
    assert unit["Service"]["User"] == "fogmqtt"
    assert unit["Service"]["NoNewPrivileges"] == "yes"
    assert main(["service", "uninstall", "--root", str(tmp_path)]) == 0
    assert not path.exists()


#: What each unit must forbid: a compromised agent or gateway harms nothing but its own files.
SANDBOX = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "PrivateTmp": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectControlGroups": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "CapabilityBoundingSet": "",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fog-device", units.board_unit("fogmqtt", "/bin/true", Path("/etc/fogmqtt"))),
        ("fog-gateway", units.gateway_unit("fogmqtt", Path("/srv/fog/config.yaml"))),
        ("fog-broker", units.broker_unit("fogmqtt", "/bin/true", Path("/srv/fog/m.conf"))),
    ],
)
def test_a_service_runs_in_a_sandbox(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.service"
    path.write_text(text)
    service = unit_of(path)["Service"]
    assert {key: service.get(key) for key in SANDBOX} == SANDBOX
    analyze = shutil.which("systemd-analyze")
    if analyze is None:  # the lines are checked on every machine, and scored where systemd is
        return
    command = [analyze, "security", "--offline=true", "--threshold=35", str(path)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_a_service_keeps_the_brokers_that_were_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = ["--broker", "mqtt://10.0.0.5:1883"]
    dry = ["service", "install", "--root", str(tmp_path), "--dry-run"]
    assert main(["--id", "eya", *broker, *dry]) == 0
    assert "--id eya --broker mqtt://10.0.0.5:1883\n" in capsys.readouterr().out
    assert main(["--id", "eya", "--broker", "no url", *dry]) == 2


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--id", "eya", "service", "install", "--root", str(tmp_path), "--dry-run"]) == 0
    assert "would write" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_service_says_that_the_system_is_read_only_and_the_way_out(action: str) -> None:
    program = (sys.executable, "-m", "fogmqtt.cli.device", "--id", "eya")
    done = on_a_read_only_system(*program, "service", action)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "fog-device.service is on a read-only file system; let it be written for this" in line
    without = "run the board without a service" in line
    assert without == (action == "install")


def test_the_installer_says_that_the_system_is_read_only(tmp_path: Path) -> None:
    script = tmp_path / "join.sh"
    script.write_text(install_script(make_site(tmp_path / "fog"), "127.0.0.1:8884"))
    done = on_a_read_only_system("sh", str(script), str(CODE))
    assert done.returncode == 1
    assert done.stderr.startswith("join.sh: /opt/fogmqtt cannot be written; if the system is read-")


def on_a_read_only_system(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where `/` cannot be written, which no other program notices."""
    if os.geteuid() != 0 or not Path("/proc/self/ns/mnt").exists():
        pytest.skip("a read-only system needs root on Linux: run the test as root")
    prepare = (
        "mount --make-rprivate / && mount --bind /etc /etc"
        ' && mount -o remount,ro,bind / && mount -o remount,ro,bind /etc && exec "$@"'
    )
    words = ("unshare", "--mount", "sh", "-c", prepare, "sh", *command)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_a_service_needs_an_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "--root", str(tmp_path)]) == 2
    assert "this device has no id" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "word"),
    [
        ("/srv/fog", "/srv/fog/config.yaml"),
        ("/srv/my fog", '"/srv/my fog/config.yaml"'),
        ("/srv/100%", "/srv/100%%/config.yaml"),
        ("/srv/$HOME", '"/srv/$$HOME/config.yaml"'),
    ],
)
def test_a_folder_of_any_name_is_one_word_of_a_unit(folder: str, word: str) -> None:
    assert f"--config {word}\n" in units.gateway_unit("pi", Path(folder) / "config.yaml")


def test_a_folder_with_a_line_break_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot stand in a unit"):
        units.gateway_unit("pi", Path("/srv/a\nExecStartPre=x/config.yaml"))


def test_forgetting_a_board_that_has_not_joined_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["--id", "eya", "forget"]) == 0
    assert "has not joined here" in capsys.readouterr().out
