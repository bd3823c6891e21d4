"""Whether other machines can be found from here: NAT, guest networks, and mDNS."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from fogmqtt.doctor.finding import Finding, fault, ok, warning

#: Networks behind a machine of their own, which no announcement crosses.
_NAT: Final = {
    "10.0.2.0/24": "a virtual machine (QEMU, VirtualBox)",
    "172.17.0.0/16": "Docker",
    "10.88.0.0/16": "Podman",
    "192.168.122.0/24": "a virtual machine (libvirt)",
    "172.16.0.0/12": "a container or WSL",
    "100.64.0.0/10": "the provider's NAT",
}
_BY_NAME: Final = "name its machine: --gateway HOST to join, or --broker mqtt://HOST:1883"


def network(addresses: Sequence[str], *, hears_mdns: bool | None) -> Finding:
    """Judge this machine's addresses, and whether anybody answers by mDNS; None: not known."""
    if not addresses:
        return fault(
            "network",
            "this machine has no address but that of loopback",
            "connect it: ip address shows what it has",
        )
    behind = [_nat_of(one) for one in addresses if ":" not in one]
    if behind and all(behind):
        return warning(
            "network",
            f"this machine is behind the NAT of {behind[0]} ({addresses[0]}): no gateway is found "
            "from here, and no board finds this machine",
            f"use the host's network (--network host, a bridged adapter), or {_BY_NAME}",
        )
    if hears_mdns is False:
        return warning(
            "network",
            "no machine answers by mDNS: a guest network and the isolation of an access point keep "
            "machines from each other, and other VLANs are not reached",
            f"use the network of the gateway, or {_BY_NAME}",
        )
    return ok("network", f"this machine has {', '.join(addresses[:4])}")


def _nat_of(address: str) -> str:
    """Return behind what an address is; empty for one of an ordinary network."""
    found = ipaddress.ip_address(address)
    return next((what for net, what in _NAT.items() if found in ipaddress.ip_network(net)), "")
