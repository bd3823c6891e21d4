"""`fog-device service install` and `uninstall`: the agent as a service of systemd."""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from fogmqtt.errors import ConfigError, UsageError, reason_of
from fogmqtt.joining import units
from fogmqtt.joining.identity import SYSTEM, folders, forget_identity, load_identity
from fogmqtt.transport.link import parse_url

_UNIT: Final = Path("etc/systemd/system/fog-device.service")
_NAME: Final = "fog-device"
#: It exists while systemd runs.
_SYSTEMD: Final = Path("/run/systemd/system")


def install(device: str, options: argparse.Namespace) -> int:
    """Write the unit, make the user, and start the service. Returns the exit code."""
    user, root = options.user, options.root
    more = ("--config", str(options.config.absolute())) if options.config else ()
    for url in options.broker or ():
        parse_url(url)
        more = (*more, "--broker", url)
    command = " ".join((units.board_program(), *map(units.quoted, ("--id", device, *more))))
    text = units.board_unit(user, command, SYSTEM)
    path = root / _UNIT
    if options.dry_run:
        print(f"would write {path}:\n\n{text}\nand start it as the user {user}")
        return 0
    is_here = _is_here(root)
    _check_root(root)
    _check_writable(path, *((SYSTEM, *_user_files(user)) if is_here else ()), device=device)
    if is_here:
        _make_user(user)
        SYSTEM.mkdir(mode=0o755, exist_ok=True)
        _give_identity(device, user)
    _write(path, text)
    print(f"wrote {path}")
    if not (is_here and _SYSTEMD.is_dir()):
        print(f"systemd does not run here, so nothing is started: {command}")
        return 0
    for words in (("daemon-reload",), ("enable", "--quiet", _NAME), ("restart", _NAME)):
        _run("systemctl", *words)
    print(f"{device} is running; its log: journalctl -fu {_NAME}")
    return 0


def uninstall(options: argparse.Namespace) -> int:
    """Stop the service and remove the unit. Returns the exit code."""
    path = options.root / _UNIT
    if options.dry_run:
        print(f"would stop {_NAME} and remove {path}")
        return 0
    _check_root(options.root)
    _check_writable(path)
    if _is_here(options.root) and _SYSTEMD.is_dir() and path.exists():
        _run("systemctl", "disable", "--quiet", "--now", _NAME)
    try:
        path.unlink(missing_ok=True)
    except OSError as problem:
        raise ConfigError(f"{path}: {reason_of(problem, path.parent)}") from None
    if _is_here(options.root) and _SYSTEMD.is_dir():
        _run("systemctl", "daemon-reload")
    print(f"removed {path}")
    return 0


def forget(device: str) -> int:
    """Remove the identity of this board. Returns the exit code."""
    found = load_identity(device, folders(os.environ))
    if found is None:
        print(f"{device} has not joined here")
        return 0
    identity, folder = found
    forget_identity(device, folder)
    print(
        f"{device} is no board of {identity.gateway} any more; there, run fog-gateway revoke "
        f"{device}"
    )
    return 0


def _is_here(root: Path) -> bool:
    return root.absolute() == Path("/")


def _check_root(root: Path) -> None:
    if _is_here(root) and os.geteuid() != 0:
        raise UsageError("a service needs root: call this with sudo, or give --root FOLDER")


def _check_writable(*paths: Path, device: str = "") -> None:
    """Raise ConfigError if one of these is on a read-only system, before anything is done."""
    for path in paths:
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        if os.statvfs(there).f_flag & os.ST_RDONLY:
            without = (
                "; or run the board without a service, with its identity on a disk that can be "
                f"written: XDG_CONFIG_HOME=/data fog-device --id {device}"
            )
            raise ConfigError(
                f"{path} is on a read-only file system; let it be written for this one command, as "
                "by `sudo mount -o remount,rw /`, or on a Raspberry Pi without its overlay file "
                f"system (sudo raspi-config){without if device else ''}"
            )


def _user_files(user: str) -> tuple[Path, ...]:
    """Return what `useradd` writes, if this user is still to be made."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return (Path("/etc/passwd"),)
    return ()


def _make_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        nologin = shutil.which("nologin", path="/usr/sbin:/sbin") or "/bin/false"
        _run("useradd", "--system", "--user-group", "--no-create-home", "--shell", nologin, name)


def _give_identity(device: str, user: str) -> None:
    """Let the service read the identity, and renew it."""
    found = load_identity(device, folders(os.environ))
    if found is None:
        return
    identity, folder = found
    owner = pwd.getpwnam(user)
    for path in (folder / f"{device}.json", identity.pem(folder), identity.ca(folder)):
        if folder != SYSTEM:
            shutil.move(path, SYSTEM / path.name)
        os.chown(SYSTEM / path.name, owner.pw_uid, owner.pw_gid)
    # A renewed certificate is written beside the old one, and takes its place.
    os.chown(SYSTEM, owner.pw_uid, owner.pw_gid)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o644)
    except OSError as problem:
        raise ConfigError(f"{path}: {reason_of(problem, path.parent)}") from None


def _run(*command: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
        )
    except OSError as problem:
        raise ConfigError(f"{command[0]} cannot be started: {problem.strerror}") from None
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
        raise ConfigError(f"`{' '.join(command)}` failed with exit code {done.returncode}")
