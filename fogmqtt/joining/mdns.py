"""Gateways by mDNS: a gateway announces itself, and a board looks for those of its network.

An announcement is a hint and proves nothing: anybody can make one. zeroconf needs 24 MB, so a board
has it only while it joins.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from zeroconf import Error as ZeroconfError
from zeroconf import (
    InterfaceChoice,
    IPVersion,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
    ZeroconfServiceTypes,
)

from fogmqtt.joining.names import host_name
from fogmqtt.joining.notice import GatewayNotice, Withdraw
from fogmqtt.log import one_line
from fogmqtt.wire.topics import is_id

SERVICE: Final = "_fogmqtt._tcp.local."
#: Seconds for which a board looks.
LOOK_S: Final = 3.0
#: Milliseconds for the details of one announcement.
_DETAILS_MS: Final = 1500
_VERSION: Final = "1"
_LOOPBACK: Final = ("127.0.0.1",)


def announce(notice: GatewayNotice) -> Withdraw:
    """Announce a gateway, and return what takes that back.

    Raises OSError where multicast is not possible.
    """
    # It writes tracebacks while a link is down, which passes.
    logging.getLogger("zeroconf").setLevel(logging.ERROR)
    is_inner = all(ipaddress.ip_address(one).is_loopback for one in notice.addresses)
    zeroconf = Zeroconf(
        interfaces=list(_LOOPBACK) if is_inner else InterfaceChoice.All,
        ip_version=IPVersion.V4Only,
    )
    try:
        # A second gateway of this name gets a number behind it; TXT has the id.
        zeroconf.register_service(_service(notice), allow_name_change=True)
    except ZeroconfError as problem:
        zeroconf.close()
        raise OSError(str(problem) or type(problem).__name__) from None
    return zeroconf.close


def find_gateways(
    look_s: float = LOOK_S, *, pin: str = "", interfaces: Sequence[str] | None = None
) -> list[GatewayNotice]:
    """Return the gateways that are announced. With a `pin`, the first one that has it, at once.

    Raises OSError where multicast is not possible.
    """
    found: dict[str, GatewayNotice] = {}
    changed = threading.Condition()

    def note(
        zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            return
        # A question to the network would block the thread that receives the answer.
        threading.Thread(target=look, args=(zeroconf, service_type, name), daemon=True).start()

    def look(zeroconf: Zeroconf, service_type: str, name: str) -> None:
        info = zeroconf.get_service_info(service_type, name, _DETAILS_MS)
        notice = None if info is None else _notice_in(info)
        with changed:
            if notice is not None:
                found[name] = notice
                changed.notify_all()

    def is_found() -> bool:
        return bool(pin) and any(one.pin == pin for one in found.values())

    choice = list(interfaces) if interfaces is not None else InterfaceChoice.All
    zeroconf = Zeroconf(interfaces=choice, ip_version=IPVersion.V4Only)
    try:
        browser = ServiceBrowser(zeroconf, SERVICE, handlers=[note])
        deadline = time.monotonic() + look_s
        with changed:
            while not is_found() and (left := deadline - time.monotonic()) > 0:
                changed.wait(left)
            notices = [one for one in found.values() if not pin or one.pin == pin]
        browser.cancel()
    finally:
        zeroconf.close()
    return sorted(notices, key=lambda one: one.gateway)


def hears_anybody(look_s: float = LOOK_S) -> bool:
    """Return whether any machine announces anything. Raises OSError where multicast fails."""
    return bool(ZeroconfServiceTypes.find(timeout=look_s, ip_version=IPVersion.V4Only))


def _service(notice: GatewayNotice) -> ServiceInfo:
    properties = {
        "v": _VERSION,
        "id": notice.gateway,
        "prefix": notice.prefix,
        "tls": "1" if notice.tls else "0",
        "join": "ask" if notice.asks else "invite" if notice.pin else "open",
        "ca": notice.pin,
        "port": str(notice.join_port),
    }
    return ServiceInfo(
        SERVICE,
        f"{notice.gateway}.{SERVICE}",
        parsed_addresses=list(notice.addresses),
        port=notice.port,
        properties=properties,
        server=f"{host_name()}-fog.local.",
    )


def _notice_in(info: ServiceInfo) -> GatewayNotice | None:
    """Return what an announcement says; None if it is none of ours. Strangers can make one, too."""
    texts = {
        key.decode("utf-8", "replace"): (value or b"").decode("utf-8", "replace")
        for key, value in info.properties.items()
    }
    gateway, port = texts.get("id", ""), texts.get("port", "0")
    if texts.get("v") != _VERSION or not is_id(gateway) or not info.port:
        return None
    return GatewayNotice(
        gateway=gateway,
        prefix=one_line(texts.get("prefix", ""))[:64],
        addresses=tuple(info.parsed_addresses(IPVersion.V4Only)),
        port=info.port,
        tls=texts.get("tls") == "1",
        pin=one_line(texts.get("ca", ""))[:26],
        asks=texts.get("join") == "ask",
        join_port=int(port) if port.isascii() and port.isdigit() and int(port) < 65_536 else 0,
    )
