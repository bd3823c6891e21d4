"""Whether an invited board can join now, as a program of the gateway's machine sees it."""

from __future__ import annotations

import shlex
import time
from typing import Final

from fogmqtt.errors import JoinRefused, NoGateway
from fogmqtt.joining.board import fetch
from fogmqtt.joining.names import at, own_addresses
from fogmqtt.joining.site import Site

#: Seconds in which a gateway opens its join port, and between two looks.
_OPEN_S: Final = 5.0
_AGAIN_S: Final = 0.05
_MOST_BYTES: Final = 65_536


def await_port(site: Site) -> str:
    """Wait until an invited board can join. Return why it cannot; empty if it can."""
    if not site.is_served:
        return (
            f"no gateway serves {site.folder}; start it: sudo systemctl start fog-gateway, or "
            f"fog-gateway --config {shlex.quote(str(site.config))}"
        )
    hosts, ends = ("127.0.0.1", *own_addresses()), time.monotonic() + _OPEN_S
    while True:
        problems = [_refusal(site, host) for host in hosts]
        if "" in problems:
            return ""
        if time.monotonic() > ends:
            return f"the gateway runs, and its log says why: {problems[0]}"
        time.sleep(_AGAIN_S)


def _refusal(site: Site, host: str) -> str:
    """Return why boards cannot join at an address of this machine; empty if they can."""
    url = f"https://{at(host, site.settings.join_port)}"
    try:
        fetch(url, "/ca", site.authority.pem, _MOST_BYTES)
    except (JoinRefused, NoGateway) as problem:
        return str(problem)
    return ""
