"""`fog-gateway init`: makes the folder of a gateway that boards can join, with its own broker."""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fogmqtt.config import load_gateway
from fogmqtt.errors import ConfigError, UsageError, missing_package
from fogmqtt.wire.topics import Topics, check_id

if TYPE_CHECKING:
    from fogmqtt.joining.site import Site, SiteSettings

#: Ports of the broker on this machine; the first is often that of the system's own broker.
_LOCAL_PORTS: Final = (1883, 2883, 3883)

_CONFIG: Final = """\
# Written by fog-gateway init. config.yaml of fogmqtt has every key, with its default and reason.

broker:
  url: mqtt://127.0.0.1:{local_port}
  embedded: never
  username: {gateway}
  password_file: broker/{gateway}.password

gateway:
  id: {gateway}

wire:
  prefix: {prefix}

joining:
  folder: .
  listen: {listen}
"""

_NEXT: Final = """\

Now start both, as services:
  sudo cp {folder}/fog-broker.service {folder}/fog-gateway.service /etc/systemd/system/
  sudo systemctl daemon-reload && sudo systemctl enable --now fog-broker fog-gateway
or in two terminals:
  {mosquitto} -c {broker}
  {program} --config {config}
Then invite each board, and do what it prints:
  {program} --config {config} invite eya"""


def init(options: argparse.Namespace) -> int:
    """Make the folder, and say what was written and what to do. Returns the exit code.

    Raises UsageError and ConfigError.
    """
    try:
        from fogmqtt.joining.bundle import utc_now
        from fogmqtt.joining.site import Site
    except ImportError as problem:
        raise needs_join(problem) from None
    from fogmqtt.joining import broker_files, units

    mosquitto = broker_files.find_mosquitto()
    version = broker_files.mosquitto_version(mosquitto)
    user = _user(options.user)
    site = Site(options.folder, _settings(options))
    texts = {
        site.config: _config_text(site),
        site.folder / "fog-broker.service": units.broker_unit(
            user.name, mosquitto, site.broker_config
        ),
        site.folder / "fog-gateway.service": units.gateway_unit(user.name, site.config),
    }
    if not _may_write([*texts, site.broker_config], yes=options.yes):
        print("nothing was changed", file=sys.stderr)
        return 1
    before = set(site.folder.rglob("*")) if site.folder.exists() else set()
    os.umask(0o077)
    try:
        site.folder.mkdir(parents=True, exist_ok=True)
        site.make(utc_now())
        site.write_configuration(user.name, version)
        for path, text in texts.items():
            path.write_text(text, "utf-8")
        if os.geteuid() == 0 and user.uid != 0:
            site.give_to(user.uid, user.gid)
    except OSError as problem:
        raise ConfigError(f"{problem.filename or site.folder}: {problem.strerror}") from None
    load_gateway(site.config, {})  # it must be one that the gateway takes
    _report(site.folder, before)
    is_told = site.reload_broker()
    print(
        _NEXT.format(
            folder=_shown(site.folder),
            mosquitto=mosquitto,
            broker=_shown(site.broker_config),
            config=_shown(site.config),
            program=_program(),
        )
    )
    if is_told:
        print("\nThe broker that runs has read its lists again; restart it for new ports or names.")
    return 0


def needs_join(problem: ImportError) -> Exception:
    """Return what to say where a package of the extra `join` is missing."""
    if not missing_package(problem):
        return problem
    return UsageError(f"a package is missing: {problem.name}; pip install 'fogmqtt[join]'")


def _settings(options: argparse.Namespace) -> SiteSettings:
    """Return what was asked for; what was not stays as an earlier call has left it."""
    from fogmqtt.joining.names import check_addresses
    from fogmqtt.joining.site import Site, SiteSettings

    try:
        old = Site.open(options.folder).settings
    except ConfigError:
        old = SiteSettings(
            gateway="mariem", prefix="fog/v1", port=8883, local_port=0, join_port=8884
        )
    port, join_port = options.port or old.port, options.join_port or old.join_port
    addresses = old.addresses if options.address is None else tuple(options.address)
    made = SiteSettings(
        gateway=check_id(options.id or old.gateway, "--id"),
        prefix=Topics(options.prefix or old.prefix).prefix,
        port=port,
        local_port=options.local_port or old.local_port or _free_port((port, join_port)),
        join_port=join_port,
        addresses=() if addresses == ("all",) else check_addresses(addresses),
    )
    if len({made.local_port, port, join_port}) < 3:
        raise UsageError("--port, --join-port and --local-port: give three different ports")
    return made


def _config_text(site: Site) -> str:
    settings = site.settings
    host = "127.0.0.1" if site.is_loopback_only else "0.0.0.0"  # noqa: S104
    return _CONFIG.format(
        gateway=settings.gateway,
        prefix=settings.prefix,
        local_port=settings.local_port,
        listen=f"{host}:{settings.join_port}",
    )


@dataclass(frozen=True)
class _User:
    """Who runs gateway and broker. In a container it may have no name, but its number."""

    name: str
    uid: int
    gid: int


def _user(name: str | None) -> _User:
    own = os.geteuid()
    name = name or (os.environ.get("SUDO_USER") if own == 0 else None)
    try:
        user = pwd.getpwnam(name) if name else pwd.getpwuid(own)
    except KeyError:
        if name:
            raise UsageError(f"--user: there is no user {name!r} here") from None
        return _User(str(own), own, os.getegid())
    if own not in (0, user.pw_uid):
        raise UsageError(f"--user: only root makes files for {name}; call this with sudo")
    return _User(user.pw_name, user.pw_uid, user.pw_gid)


def _free_port(taken: tuple[int, ...]) -> int:
    for port in _LOCAL_PORTS:
        if port in taken:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise UsageError(f"--local-port: {_LOCAL_PORTS} are taken; name a free port")


def _may_write(paths: list[Path], *, yes: bool) -> bool:
    there = [path for path in paths if path.exists()]
    if yes or not there:
        return True
    print("These files exist and would be written anew:", file=sys.stderr)
    for path in there:
        print(f"  {_shown(path)}", file=sys.stderr)
    if not sys.stdin.isatty():
        print("give --yes to overwrite them", file=sys.stderr)
        return False
    return input("Overwrite them? [y/N] ").strip().lower() in ("y", "yes")


def _report(folder: Path, before: set[Path]) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".lock":
            print(f"{'kept or renewed' if path in before else 'wrote'} {_shown(path)}")


def _program() -> str:
    """Return this program as the user would type it again: an environment may not be active."""
    called = Path(sys.argv[0])
    is_found = shutil.which(called.name) is not None
    return "fog-gateway" if is_found or called.name != "fog-gateway" else _shown(called)


def _shown(path: Path) -> str:
    """Return a path as the user would type it."""
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(shown))
