"""What Mosquitto reads: its configuration, the access list, and the gateway's password.

Boards come by TLS with a certificate, whose name is their user. The gateway's own programs come by
loopback with a password that only their user can read: they need no TLS there, and several of them
share one user.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fogmqtt.errors import ConfigError

#: The oldest version that has all options of `_CONFIG`.
OLDEST: Final = (2, 0, 0)
_VERSION = re.compile(r"mosquitto version (\d+)\.(\d+)\.(\d+)")

_CONFIG: Final = """\
# Written by fog-gateway init for Mosquitto {version}. `fog-gateway init` writes it anew.
# broker/mosquitto.conf of fogmqtt gives the reasons for the limits.

user {user}
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
set_tcp_nodelay true
max_packet_size 67108864
max_queued_messages 10000
max_queued_bytes 268435456
memory_limit 2147483648
max_keepalive 120
persistence false
log_dest stderr
log_timestamp_format %Y-%m-%dT%H:%M:%S
log_type error
log_type warning
log_type notice
log_type information

# The gateway and the other programs of its user, on this machine only.
listener {local_port} 127.0.0.1
max_connections 64

# Boards. The name in a board's certificate is its user and its client id, so no board can
# disconnect another one.
listener {port}{bind}
cafile {ca}
certfile {folder}/broker.crt
keyfile {folder}/broker.key
crlfile {folder}/revoked.crl
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
max_connections 256
"""

_OWNER: Final = """\
# Written by fogmqtt: anew for each board that joins or leaves.

user {gateway}
topic read $SYS/#
topic readwrite {prefix}/#
"""

# A gateway that does one job has a random id, so its name cannot stand here.
_BOARD: Final = """
user {board}
topic read {prefix}/devices/{board}/tiles
topic read {prefix}/devices/{board}/control
topic read {prefix}/devices/{board}/info
topic write {prefix}/devices/{board}/status
topic write {prefix}/devices/{board}/info
topic write {prefix}/gateways/+/results/{board}
topic read {prefix}/frames/{board}/wanted
topic write {prefix}/frames/{board}/in
"""


def find_mosquitto() -> str:
    """Return the path of Mosquitto. Raises ConfigError."""
    # Debian installs it where ordinary users do not look.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise ConfigError("Mosquitto is not installed: sudo apt install mosquitto")
    return found


def mosquitto_version(program: str) -> str:
    """Return the version of Mosquitto. Raises ConfigError if it is too old."""
    try:
        said = subprocess.run(
            [program, "-h"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise ConfigError(f"{program} cannot be started: {problem}") from None
    found = _VERSION.search(said)
    version = ".".join(found.groups()) if found else "unknown"
    if found is None or tuple(map(int, found.groups())) < OLDEST:
        raise ConfigError(
            f"{program} has the version {version}, and at least 2.0 is needed; install a newer one"
        )
    return version


def configuration(
    *,
    folder: Path,
    ca: Path,
    user: str,
    version: str,
    port: int,
    local_port: int,
    loopback_only: bool,
) -> str:
    """Return mosquitto.conf."""
    return _CONFIG.format(
        folder=folder,
        ca=ca,
        user=user,
        version=version,
        port=port,
        local_port=local_port,
        bind=" 127.0.0.1" if loopback_only else "",
    )


def access_list(gateway: str, prefix: str, boards: Iterable[str]) -> str:
    """Return the access list: the gateway's user, and each board for its own name."""
    blocks = [_BOARD.format(board=board, prefix=prefix) for board in sorted(boards)]
    return "".join((_OWNER.format(gateway=gateway, prefix=prefix), *blocks))


def reload(config: Path) -> bool:
    """Let the Mosquitto that runs with this configuration read its files again.

    Return whether there is one on this machine that this user may tell so.
    """
    told = False
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if Path(os.fsdecode(words[0])).name == "mosquitto" and _names(words, process, config):
                os.kill(int(process.name), signal.SIGHUP)
                told = True
    return told


def _names(words: list[bytes], process: Path, config: Path) -> bool:
    folder = (process / "cwd").readlink()
    return any(word and folder / os.fsdecode(word) == config for word in words[1:])
