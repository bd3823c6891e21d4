"""Debian for arm64 in a folder, whose Python runs here under qemu-user. It needs no root.

Packages are unpacked and not installed: Python and its libraries need no scripts of theirs. QEMU
finds the libraries in the folder by its option -L, so nothing is mounted and no root is changed.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
#: What Python and the wheels need of the system; apt adds what these depend on.
_PACKAGES: Final = ("python3", "python3-venv", "libstdc++6", "libgcc-s1", "zlib1g")
_EMULATOR: Final = "qemu-user-static"
_QEMU: Final = "qemu-aarch64-static"
#: An own state, so that the machine's apt neither learns of arm64 nor is locked.
_APT: Final = """\
APT::Architecture "{machine}";
APT::Architectures {{ "{machine}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{cache}";
Dir::Log "{cache}";
"""
#: It tells Python the name under which it was started, as the kernel does: so `sys.executable` is
#: this file or a link to it, which child processes and environments start.
_WRAPPER: Final = """\
#!/bin/sh
exec {qemu} -0 "$0" -L {system} {system}/usr/bin/{python} "$@"
"""
#: The requirement of an extra that a board installs.
_JOIN: Final = re.compile(r"extra == ['\"]join['\"]")
#: A program that says nothing for this long hangs, seconds.
_TIMEOUT_S: Final = 600.0


class MissingError(Exception):
    """The machine lacks something that the test needs; the text is one sentence for people."""


@dataclass(frozen=True)
class ArmSystem:
    """An unpacked system. `python` runs programs in it, and looks like any other Python."""

    folder: Path
    python: Path

    def environment(self, cpu: str, **more: str) -> dict[str, str]:
        """Return the environment for a program, with a cache folder for this kind of processor."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FOGMQTT_", "PYTHON", "OPENCV_", "LD_"))
        }
        return clean | {
            "QEMU_CPU": cpu,
            "PYTHONPATH": os.pathsep.join(map(str, (self.folder / "site", ROOT))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_CACHE_HOME": str(self.folder / f"cache-{cpu}"),
            **more,
        }

    def run(self, cpu: str, *arguments: str, timeout_s: float = _TIMEOUT_S) -> bytes:
        """Run a Python program to its end and return what it wrote.

        Raises subprocess.CalledProcessError, whose `stderr` has the reason.
        """
        return subprocess.run(
            [self.python, *arguments],
            cwd=ROOT,
            env=self.environment(cpu),
            capture_output=True,
            timeout=timeout_s,
            check=True,
        ).stdout


def build(folder: Path) -> ArmSystem:
    """Return the system in this folder; what it lacks is downloaded, and each step is printed.

    Raises MissingError.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingError(f"{program} is not here: this test needs Debian or a system like it")
    folder.mkdir(parents=True, exist_ok=True)
    qemu = _emulator(folder)
    system = folder / "system"
    _unpack(folder, "arm64", _PACKAGES, system)
    names = sorted(
        one.name for one in (system / "usr/bin").glob("python3.*") if "-" not in one.name
    )
    if not names:
        raise MissingError(f"{system} holds no Python: remove {folder} and run this again")
    _install_wheels(folder / "site", names[0].removeprefix("python"))
    python = folder / "python3"
    python.write_text(_WRAPPER.format(qemu=qemu, system=system, python=names[0]))
    python.chmod(0o755)
    return ArmSystem(folder, python)


def _emulator(folder: Path) -> Path:
    """Return the emulator of this machine, or one that is unpacked into the folder."""
    installed = shutil.which(_QEMU)
    if installed:
        return Path(installed)
    machine = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    _unpack(folder, machine, (_EMULATOR,), folder / "emulator")
    return folder / "emulator/usr/bin" / _QEMU


def _unpack(folder: Path, machine: str, packages: Sequence[str], into: Path) -> None:
    """Download packages for a kind of machine, with what they depend on, and unpack them."""
    stamp = into / f".unpacked-{'-'.join(packages)}"
    if stamp.exists():
        return
    state, cache = folder / f"apt-{machine}/state", folder / f"apt-{machine}/cache"
    for each in (state / "lists/partial", cache / "archives/partial"):
        each.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    config = folder / f"apt-{machine}/apt.conf"
    user = "root" if os.geteuid() == 0 else ""
    config.write_text(_APT.format(machine=machine, state=state, cache=cache, user=user))
    environment = os.environ | {"APT_CONFIG": str(config)}
    _step(f"list of Debian's packages for {machine}", ["apt-get", "update"], environment)
    download = ["apt-get", "install", "--yes", "--download-only", *packages]
    _step(f"{', '.join(packages)} for {machine}", download, environment)
    archives = sorted((cache / "archives").glob("*.deb"))
    _say(f"unpacking {len(archives)} packages")
    into.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        subprocess.run(["dpkg-deb", "-x", archive, into], check=True)
    stamp.touch()


def _install_wheels(site: Path, version: str) -> None:
    """Install the wheels of fogmqtt's dependencies, in the releases that are installed here."""
    pins = sorted(_pins())
    stamp = site / ".installed"
    if stamp.exists() and stamp.read_text() == "\n".join(pins):
        return
    shutil.rmtree(site, ignore_errors=True)
    platforms = ["manylinux2014_aarch64", *(f"manylinux_2_{n}_aarch64" for n in range(17, 37))]
    command = [
        *(sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", version),
        *(f"--platform={one}" for one in (*platforms, "any")),
        *("--target", str(site), *pins),
    ]
    _step(f"{len(pins)} wheels for aarch64 and Python {version}", command, dict(os.environ))
    stamp.write_text("\n".join(pins))


def _pins() -> Iterator[str]:
    """Yield the releases of everything that fogmqtt needs, with the extra `join`."""
    waiting, seen = ["fogmqtt"], {"fogmqtt"}
    while waiting:
        for line in importlib.metadata.requires(waiting.pop()) or ():
            name = re.split(r"[^\w.-]", line, maxsplit=1)[0].lower().replace("_", "-")
            is_extra = "extra ==" in line and _JOIN.search(line) is None
            if is_extra or name in seen:
                continue
            seen.add(name)
            try:
                release = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue  # for other systems or versions of Python
            waiting.append(name)
            yield f"{name}=={release}"


def _step(what: str, command: Sequence[str], environment: dict[str, str]) -> None:
    """Run a program that downloads, and print what it is for and how long it took."""
    _say(f"downloading {what} …")
    began = time.monotonic()
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.startswith(("E:", "ERROR"))]
        reason = (lines or done.stdout.splitlines() or ["no reason was given"])[0]
        raise MissingError(f"{what} cannot be downloaded: {reason}")
    _say(f"  {time.monotonic() - began:.0f} s")


def _say(text: str) -> None:
    print(text, flush=True)
