"""The line that installs a board, and the script that it runs.

The script comes from the join port, whose key the line names, so nobody in between can change it.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Final

import fogmqtt
from fogmqtt.joining.authority import public_key_hash
from fogmqtt.joining.bundle import JoinCode
from fogmqtt.joining.names import at
from fogmqtt.joining.site import Site
from fogmqtt.joining.versions import TRIAL_S
from fogmqtt.joining.wheel import wheel_name

_TEMPLATE: Final = Path(__file__).with_name("join.sh")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")


def install_script(site: Site, host: str) -> str:
    """Return join.sh for a board that reaches the join port under this `host:port`."""
    if _HOST.fullmatch(host) is None:
        host = _host(site)
    text = _TEMPLATE.read_text("utf-8")
    for word, value in (
        ("GATEWAY", site.settings.gateway),
        ("VERSION", fogmqtt.__version__),
        ("HOST", host),
        ("PIN", _pin(site)),
        ("WHEEL", wheel_name()),
        ("TRIAL", str(TRIAL_S)),
    ):
        text = text.replace(f"@{word}@", value)
    return text


def install_line(site: Site, code: JoinCode) -> str:
    """Return what a user types on a bare board.

    A pipe would end well if curl fails, since `sh` has a script of no lines then.
    """
    return (
        f"curl -fsSk --pinnedpubkey '{_pin(site)}' -o join.sh https://{_host(site)}/join.sh "
        f"&& sudo sh join.sh {code}"
    )


def _host(site: Site) -> str:
    """Return where boards reach the join port: an address, since a bare board may lack mDNS."""
    by_address = [one for one in site.addresses if not one.endswith(".local")]
    return at((by_address or list(site.addresses))[0], site.settings.join_port)


def _pin(site: Site) -> str:
    digest = public_key_hash(site.certificate.read_text())
    return f"sha256//{base64.b64encode(digest).decode()}"
