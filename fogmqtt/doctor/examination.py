"""Which checks a gateway's and a device's doctor make, in the order in which they help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from fogmqtt import __version__
from fogmqtt.config.addresses import parse_listen
from fogmqtt.config.schema import BrokerSettings, DeviceConfig, GatewayConfig
from fogmqtt.doctor import broker_checks, machine, running_agent
from fogmqtt.doctor.broker_look import LISTEN_S, BrokerFacts, Look
from fogmqtt.doctor.finding import Finding, fault
from fogmqtt.transport.link import Link, parse_url
from fogmqtt.transport.probe import is_broker, is_listening, is_local
from fogmqtt.wire.topics import Topics

_OWN_USER: Final = "use a user of its own for this command (broker/add-user.sh run mariem-run)"
_START_DEVICE: Final = (
    "start one: fog-device --id eya --broker mqtt://THIS-MACHINE:1883 (the same wire.prefix)"
)
_RESTART_GATEWAY: Final = "restart it, such as by sudo systemctl restart fog-gateway"
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")


@dataclass(frozen=True, slots=True)
class Joinable:
    """What `fog-gateway init` made: the command that lets a board in, and where boards come in."""

    invite: str
    port: int


def look(
    link: Link,
    topics: Topics,
    own: str,
    *,
    counters: bool,
    within_s: float,
    listen_s: float,
    group: str = "",
) -> BrokerFacts:
    """Look at the broker; returns what was found."""
    return Look(link, topics, own, counters=counters, group=group).take(within_s, listen_s)


def gateway(
    config: GatewayConfig,
    link: Link,
    name: str,
    *,
    site: Joinable | None = None,
    listen_s: float = LISTEN_S,
) -> tuple[list[Finding], BrokerFacts]:
    """Examine a gateway's configuration, its machine and its broker; `name` is this client's.

    `site` is what `init` made; None where no board can be invited.
    """
    topics = Topics(config.wire.prefix)
    own = topics.gateway(name, "status")
    within_s = config.broker.connect_timeout_s
    facts = look(
        link,
        topics,
        own,
        counters=True,
        within_s=within_s,
        listen_s=listen_s,
        group=config.gateway.group,
    )
    return [*_gateway(config, facts, site)], facts


def _gateway(config: GatewayConfig, facts: BrokerFacts, site: Joinable | None) -> Iterator[Finding]:
    settings = config.gateway
    yield machine.clock()
    yield from machine.disk((settings.spool, settings.outbox, settings.inbox))
    yield from machine.power()
    if config.dashboard.enabled != "never":
        host, number = parse_listen(config.dashboard.listen)
        yield machine.page(host, number, settings.id)
    yield from _reach(config.broker.urls, site)
    yield from _port_taken(config.broker.urls)
    yield from _broker(facts, config.wire.max_message_bytes, _OWN_USER)
    if facts.reached:
        has_group = bool(settings.group)
        # The user of a gateway that `init` made sees all, and so does everybody without users.
        is_told = site is not None or not _has_user(config.broker)
        yield broker_checks.gateways(facts, is_told=is_told)
        yield broker_checks.devices(facts, site.invite if site else _START_DEVICE)
        yield from broker_checks.twins(facts)
        others = broker_checks.several_gateways(facts, settings.id, has_group=has_group)
        yield from _present(
            [
                others,
                broker_checks.shared(facts),
                broker_checks.gateway_versions(facts, __version__, _RESTART_GATEWAY),
            ]
        )
        yield from broker_checks.device_versions(facts, __version__)
        yield from broker_checks.clocks(facts)


def device(
    config: DeviceConfig,
    link: Link,
    name: str,
    *,
    has_joined: bool = False,
    listen_s: float = LISTEN_S,
) -> list[Finding]:
    """Examine a device's machine and its broker; `name` is the device's id."""
    ports = {parse_url(url).port for url in config.broker.urls}
    if _has_user(config.broker) and running_agent.has_broker(name, ports):
        return [*machine_of_device(), _is_online(name)]
    topics = Topics(config.wire.prefix)
    # An access list forbids it, and then there is no echo; the load is measured nevertheless.
    own = topics.device(name, "doctor")
    within_s = config.broker.connect_timeout_s
    facts = look(link, topics, own, counters=False, within_s=within_s, listen_s=listen_s)
    join_again = (
        f"if the gateway was made anew or has revoked this board: on it, fog-gateway invite "
        f"--replace {name}, and join again"
    )
    return [*_device(config, name, facts, join_again if has_joined else "")]


def _is_online(name: str) -> Finding:
    """What is said of a board that works: a look at the broker would end its connection."""
    return Finding(
        "broker",
        "ok",
        f"the agent of {name} runs here and is connected; the broker lets one program of {name} "
        "in at a time, so the link was not measured",
        "to measure it: sudo systemctl stop fog-device, ask again, and start it",
    )


def _device(
    config: DeviceConfig, name: str, facts: BrokerFacts, join_again: str
) -> Iterator[Finding]:
    yield from machine_of_device()
    yield from _port_taken(config.broker.urls)
    yield from _broker(
        facts,
        config.wire.max_message_bytes,
        f"stop the agent of {name} while you ask, or give this board another name and user",
        join_again,
    )
    if facts.reached:
        yield broker_checks.gateways(facts, is_told=not _has_user(config.broker))
        update = f"on the gateway: fog-gateway update {name}, or a newer fogmqtt if it is older"
        yield from _present([broker_checks.gateway_versions(facts, __version__, update)])
        yield from broker_checks.twins(facts)
        yield from broker_checks.clocks(facts)


def machine_of_device() -> Iterator[Finding]:
    """Examine the board itself."""
    yield machine.clock()
    yield from machine.disk(("/",))
    yield from machine.power()


def _has_user(settings: BrokerSettings) -> bool:
    """Whether the broker knows who comes, so that an access list may say what it is told."""
    return bool(settings.username or settings.cert)


def _broker(
    facts: BrokerFacts, tile_bytes: int, alone: str, join_again: str = ""
) -> Iterator[Finding]:
    yield from broker_checks.broker(facts, join_again)
    if not facts.reached:
        return
    found = (
        broker_checks.taken_over(facts, alone),
        broker_checks.message_limit(facts, tile_bytes),
        broker_checks.counters(facts),
        broker_checks.delay(facts),
        broker_checks.link_rate(facts),
    )
    yield from _present(found)


def _reach(urls: Iterable[str], site: Joinable | None) -> Iterator[Finding]:
    """Judge whether other machines reach a broker of this machine."""
    tables = [machine.read_table(name) for name in _TABLES]
    ports = [parse_url(url).port for url in urls if is_local(url)]
    if site is not None and ports:
        yield from _present([machine.reach_of_boards(site.port, tables)])
        return
    yield from _present(machine.reach(port, tables) for port in ports)


def _port_taken(urls: Iterable[str]) -> Iterator[Finding]:
    """Judge whether another program has the port of a broker of this machine."""
    for url in filter(is_local, urls):
        address = parse_url(url)
        speaks_otherwise = address.tls or address.path
        if is_listening(url) and not speaks_otherwise and not is_broker(url):
            yield fault(
                "port taken",
                f"the program at {address} is no MQTT broker",
                "stop it (ss -ltnp shows its name), or name the broker's port in broker.url",
            )


def _present(found: Iterable[Finding | None]) -> Iterator[Finding]:
    return (one for one in found if one is not None)
