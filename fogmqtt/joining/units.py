"""Units of systemd: the gateway and its broker, and the agent of a board."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from fogmqtt.errors import UsageError
from fogmqtt.joining.versions import LAUNCHER, TRIAL_S
from fogmqtt.process_tuning import KEPT_MEMORY

#: Where the service of a board keeps the versions that a gateway sends.
VERSIONS: Final = Path("/var/lib/fogmqtt")
_CACHE: Final = Path("/var/cache/fogmqtt")
_GATEWAY_CACHE: Final = Path("/var/cache/fogmqtt-gateway")

#: What a service may do: read its files, open sockets of the network, and start its own processes.
_HARDENING: Final = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077
"""

_UNIT: Final = """\
# Written by fogmqtt.
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target{after}
# A machine may start long before its network, so systemd starts it again without limit.
StartLimitIntervalSec=0

[Service]
User={user}
{environment}ExecStart={command}
{reload}# Exit code 2 means a wrong configuration, which a restart does not repair.
Restart=always
RestartSec=3
RestartPreventExitStatus=2
TimeoutStopSec=30
{more}{hardening}
[Install]
WantedBy=multi-user.target
"""


def program(name: str, module: str) -> str:
    """Return the command of one of our programs, as this Python would start it."""
    script = Path(sys.executable).with_name(name)
    return quoted(str(script)) if script.exists() else f"{quoted(sys.executable)} -m {module}"


def board_program() -> str:
    """Return the command of a board's agent: by `launch.sh`, if a gateway may update it."""
    if sys.prefix == sys.base_prefix:  # without an environment of its own it stays as it is
        return program("fog-device", "fogmqtt.cli.device")
    words = ("/bin/sh", str(LAUNCHER), sys.prefix, str(VERSIONS), str(TRIAL_S))
    return " ".join(map(quoted, words))


def gateway_unit(user: str, config: Path) -> str:
    """Return the unit of the gateway."""
    command = program("fog-gateway", "fogmqtt.cli.gateway")
    return _unit(
        "fogmqtt gateway: cuts images into tiles for the boards",
        user,
        f"{command} --config {quoted(str(config))}",
        after=" fog-broker.service",
        writes=f"{quoted(str(config.parent))} -{_GATEWAY_CACHE}",
        environment=f"Environment=PYTHONUNBUFFERED=1 XDG_CACHE_HOME={_GATEWAY_CACHE}\n"
        f"{_made(user, _GATEWAY_CACHE)}",
    )


def broker_unit(user: str, mosquitto: str, config: Path) -> str:
    """Return the unit of the gateway's broker."""
    return _unit(
        "Mosquitto for fogmqtt",
        user,
        f"{quoted(mosquitto)} -c {quoted(str(config))}",
        reload="ExecReload=/bin/kill -HUP $MAINPID\n",
        environment="Environment={}\n".format(
            " ".join(f"{name}={value}" for name, value in KEPT_MEMORY.items())
        ),
    )


def board_unit(user: str, command: str, folder: Path) -> str:
    """Return the unit of a board's agent. Its identity is in `folder`."""
    return _unit(
        "fogmqtt device: processes tiles for a gateway",
        user,
        command,
        writes=f"-{quoted(str(folder))} -{VERSIONS} -{_CACHE}",
        environment=f"Environment=PYTHONUNBUFFERED=1 XDG_CACHE_HOME={_CACHE}\n"
        f"{_made(user, VERSIONS, _CACHE)}"
        # launch.sh tells the agent.
        "KillMode=mixed\n",
        # If memory runs out, the kernel ends this service and not the board.
        more="MemoryMax=75%\nOOMScoreAdjust=500\nNice=5\n",
    )


def _made(user: str, *folders: Path) -> str:
    """Return the line that makes folders of the service, as root.

    `StateDirectory=` would end a service on a read-only system before it begins. There, this line
    fails and is passed over.
    """
    names = " ".join(map(str, folders))
    return f"ExecStartPre=-+/usr/bin/install -d -m 0700 -o {quoted(user)} {names}\n"


def _unit(
    description: str,
    user: str,
    command: str,
    *,
    after: str = "",
    reload: str = "",
    writes: str = "",
    environment: str = "",
    more: str = "",
) -> str:
    if writes:
        more += f"ReadWritePaths={writes}\n"
    return _UNIT.format(
        description=description,
        user=user,
        command=command,
        after=after,
        reload=reload,
        environment=environment,
        more=more,
        hardening=_HARDENING,
    )


def quoted(text: str) -> str:
    """Return one word of a command in a unit."""
    if any(ord(letter) < 32 for letter in text):
        raise UsageError(f"{text!r} cannot stand in a unit of systemd; use another folder")
    text = text.replace("%", "%%")
    if not set(text) & set(" \"'\\$;"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'
