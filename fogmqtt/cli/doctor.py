"""`fog-gateway doctor` and `fog-device doctor`: what keeps a fog from working, and the fix."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fogmqtt.doctor import broker_checks, examination
from fogmqtt.doctor.finding import Finding, exit_code, fault
from fogmqtt.doctor.network import network
from fogmqtt.errors import FogError
from fogmqtt.log import printable
from fogmqtt.setup.link import make_link
from fogmqtt.wire.topics import Topics

if TYPE_CHECKING:
    from fogmqtt.config import DeviceConfig, GatewayConfig

_MARKS: Final = {"ok": "ok", "warning": "WARNING", "fault": "FAULT"}


def gateway_doctor(config: GatewayConfig, path: Path | None, *, as_json: bool) -> int:
    """Examine a gateway, print the findings, and return the exit code.

    `path` is that of its configuration, for commands that the user is told.
    """
    from fogmqtt.cli.discovery import find_devices
    from fogmqtt.setup.brokers import one_off_id

    _be_quiet()
    name = one_off_id(config, "look")
    topics = Topics(config.wire.prefix)
    link = make_link(config.broker, topics.client_id("gateway", name))
    site = _site(config, path)
    findings, facts = examination.gateway(config, link, name, site=site)
    if config.joining.announce != "never":
        findings += _network()
    if facts.reached and any(seen.online for seen in facts.devices.values()):
        try:
            differs = {one.id: one.differs for one in find_devices(config) if one.online}
        except FogError:
            differs = {}  # the broker went away meanwhile
        findings += broker_checks.fingerprints(differs)
    return show(findings, as_json=as_json)


def _be_quiet() -> None:
    """Log no warnings: what was refused while looking is told, and the rest is as wanted."""
    logging.getLogger("fogmqtt").setLevel(logging.ERROR)


def _site(config: GatewayConfig, path: Path | None) -> examination.Joinable | None:
    """Return what `init` made, None if it was not used."""
    if not config.joining.folder:
        return None
    from fogmqtt.cli.invite import find_site

    with suppress(FogError):
        port = find_site(config).settings.port
        command = f"fog-gateway {f'--config {path} ' if path else ''}invite eya"
        return examination.Joinable(f"invite one: {command}", port)
    return None


def device_doctor(config: DeviceConfig, device: str, *, has_joined: bool, as_json: bool) -> int:
    """Examine a device, print the findings, and return the exit code."""
    _be_quiet()
    topics = Topics(config.wire.prefix)
    link = make_link(config.broker, f"{topics.client_id('device', device)}-doctor")
    return show(examination.device(config, link, device, has_joined=has_joined), as_json=as_json)


def lonely_doctor(problem: FogError, *, as_json: bool) -> int:
    """Examine a device that found no gateway, which `problem` tells."""
    sentence, _, fix = str(problem).partition("; ")
    found = fault("gateway", sentence, fix or "name its broker by --broker")
    return show([*examination.machine_of_device(), *_network(), found], as_json=as_json)


def _network() -> list[Finding]:
    """Examine the network, as far as the packages for that are installed."""
    from fogmqtt.cli.find_gateway import hears_mdns

    try:
        from fogmqtt.joining.names import own_addresses
    except ImportError:
        return []
    return [network(own_addresses(), hears_mdns=hears_mdns())]


def show(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print findings and return the exit code: 0 if all is well, 1 for warnings, 2 for faults."""
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(list(findings))).decode())
    else:
        for one in findings:
            print(printable(f"{_MARKS[one.level]:7}  {one.check}: {one.sentence}"))
            if one.fix:
                print(printable(f"         → {one.fix}"))
    sys.stdout.flush()
    return exit_code(findings)
