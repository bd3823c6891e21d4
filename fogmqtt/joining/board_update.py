"""The board's side of an update: another version of fogmqtt in an environment of its own.

It comes from the gateway that the board has joined, which its authority proves. The packages that
it needs are those of the first environment, as far as they suit it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import fogmqtt
from fogmqtt.core.release import is_older
from fogmqtt.errors import ConfigError, FogError, JoinRefused, NoGateway
from fogmqtt.joining.board import fetch
from fogmqtt.joining.identity import Identity
from fogmqtt.joining.versions import Versions
from fogmqtt.joining.wheel import wheel_name
from fogmqtt.log import one_line

#: Seconds for one of pip's calls: a Pi on a slow line may need a new OpenCV.
_PATIENCE_S: Final = 1800.0
_MOST_BYTES: Final = 64 << 20


def update(
    identity: Identity,
    folder: Path,
    versions: Versions,
    version: str,
    fetched: Callable[[], None],
) -> None:
    """Install a version beside those that are there, and let `launch.sh` try it.

    `folder` has the identity. `fetched` is called between fetching and installing. Raises FogError.
    """
    if version == fogmqtt.__version__:
        raise JoinRefused(f"{identity.id} has fogmqtt {version} already")
    if is_older(version, fogmqtt.__version__):
        raise JoinRefused(
            f"{identity.id} has fogmqtt {fogmqtt.__version__}, and {version} is older; install a "
            "newer fogmqtt on the gateway"
        )
    wheel = _fetched(identity, folder, version)
    fetched()
    versions.clear()
    environment = versions.environment(version)
    try:
        _install(wheel, wheel_name(version), environment, versions.base)
        _check(environment, version)
    except FogError:
        shutil.rmtree(environment, ignore_errors=True)
        raise
    versions.choose(version)


def _fetched(identity: Identity, folder: Path, version: str) -> bytes:
    ca, tried = identity.ca(folder).read_text(), []
    for url in identity.join:
        try:
            return fetch(url, f"/{wheel_name(version)}", ca, _MOST_BYTES)
        except NoGateway as problem:
            tried.append(str(problem))
    raise NoGateway(f"{identity.gateway} does not answer: {'; '.join(tried)}")


def _install(wheel: bytes, name: str, environment: Path, base: Path) -> None:
    python = str(base / "bin" / "python")
    # The pip of the first environment works for this one, too, and it has those packages.
    _run(python, "-m", "venv", "--without-pip", str(environment))
    ours, theirs = (_packages(one) for one in (environment, base))
    (ours / "installed-first.pth").write_text(f"{theirs}\n", "utf-8")
    with tempfile.TemporaryDirectory() as download:
        path = Path(download) / name
        path.write_bytes(wheel)
        to = str(environment / "bin" / "python")
        pip = (python, "-m", "pip", "--python", to, "install", "--quiet", "--no-input")
        # Python compiles what the agent uses, which is a small part.
        options = ("--disable-pip-version-check", "--no-cache-dir", "--no-compile")
        _run(*pip, *options, f"{path}[join]")


def _packages(environment: Path) -> Path:
    """Return the folder with the packages of an environment."""
    found = sorted(environment.glob("lib/python3.*/site-packages"))
    if not found:
        raise ConfigError(f"{environment} is no environment of Python; install the board again")
    return found[0]


def _check(environment: Path, version: str) -> None:
    """Raise ConfigError unless the new version starts."""
    said = _run(str(environment / "bin" / "python"), "-m", "fogmqtt.cli.device", "--version")
    if version not in said.split():
        raise ConfigError(f"what was installed says {said.strip()!r}, and not {version}")


def _run(*command: str) -> str:
    """Return what a program prints. Raises ConfigError if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise ConfigError(f"{command[0]} cannot be run: {problem}") from None
    if done.returncode:
        reason = one_line((done.stderr or done.stdout).strip())[-300:]
        raise ConfigError(f"`{' '.join(command[1:4])}` failed: {reason}")
    return done.stdout
