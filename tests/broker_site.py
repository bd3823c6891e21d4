"""A folder with the shipped configuration of the broker and with users, and the broker runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fogmqtt.transport.link import Link
from tests.fog import free_port, start_mosquitto

SHIPPED = Path(__file__).parents[1] / "broker"
#: May say and hear everything; only in tests.
TESTER = "tester"
#: The users of the tests, and their roles.
USERS = {
    "mariem": "gateway",
    "mariem-run": "run",
    "eya": "device",
    "manar": "device",
    "app": "app",
    "other": "app",
    "dashboard": "dashboard",
    "homeassistant": "homeassistant",
}
#: What a user's own machine adds to the folder.
_OWN = ("certs", "passwords", "users", "acl", "acl.own")


@dataclass(frozen=True)
class Site:
    """The folder, the ports of the two listeners, and the passwords by user."""

    folder: Path
    port: int
    tls_port: int
    passwords: Mapping[str, str]
    process: subprocess.Popen[bytes]

    @classmethod
    def make(
        cls, folder: Path, users: Mapping[str, str], certificates: tuple[str, ...], own: str = ""
    ) -> Self:
        """Add the users as broker/README.md says, make certificates, and start the broker.

        `own` are more lines for the access list.
        """
        if os.geteuid() == 0:
            for part in (folder, *folder.parents[:2]):  # mosquitto gives up root's rights
                part.chmod(0o755)
        copy_shipped(folder)
        (folder / "broker" / "acl.own").write_text(f"{own}\nuser {TESTER}\ntopic readwrite #\n")
        roles = [*users.items(), (TESTER, "app")]
        passwords = {
            user: password_of(script(folder, "add-user.sh", role, user)) for user, role in roles
        }
        script(folder, "make-certs.sh", "broker", "localhost", "raspberry.local")
        script(folder, "make-certs.sh", "client", *certificates)
        port, tls_port = free_port(), free_port()
        config = folder / "broker" / "mosquitto.conf"
        config.write_text(_with_tls_and_ports(config.read_text(), port, tls_port))
        log, url = folder / "mosquitto.log", f"mqtt://127.0.0.1:{port}"
        process = start_mosquitto(Path("broker/mosquitto.conf"), log, url, cwd=folder)
        return cls(folder, port, tls_port, passwords, process)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def certs(self) -> Path:
        return self.folder / "broker" / "certs"

    def tls_link(self, host: str = "localhost", who: str = "eya", ca: str = "ca") -> Link:
        return Link(
            f"mqtts://{host}:{self.tls_port}",
            client_id="whatever",
            ca=str(self.certs / f"{ca}.crt"),
            cert=str(self.certs / f"{who}.crt") if who else None,
            key=str(self.certs / f"{who}.key") if who else None,
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def copy_shipped(folder: Path) -> None:
    """Copy what the project ships, and nothing that a developer has made in it."""
    shutil.copytree(SHIPPED, folder / "broker", ignore=shutil.ignore_patterns(*_OWN))


def script(folder: Path, name: str, *arguments: str, **environment: str) -> str:
    """Run a script in a folder's `broker`, and return what it says."""
    done = subprocess.run(
        [folder / "broker" / name, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.stdout


def password_of(said: str) -> str:
    found = re.search(r"FOGMQTT_BROKER__PASSWORD=(\S+)", said)
    assert found is not None
    return found[1]


def _with_tls_and_ports(text: str, port: int, tls_port: int) -> str:
    """The shipped configuration with its TLS block switched on, on ports that are free."""
    text = re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)
    text = text.replace("listener 1883", f"listener {port} 127.0.0.1")
    return text.replace("listener 8883", f"listener {tls_port} 127.0.0.1")
