"""Which checks a gateway's and a device's doctor make, in the order in which they help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from fogmqtt import __version__
from fogmqtt.config.addresses import parse_listen
from fogmqtt.config.schema import BrokerSettings, DeviceConfig, GatewayConfig
from fogmqtt.doctor import broker_checks, machine
from fogmqtt.doctor.broker_look import LISTEN_S, BrokerFacts, Look
from fogmqtt.doctor.finding import Finding, fault
from fogmqtt.transport.link import Link, parse_url
from fogmqtt.transport.probe import is_broker, is_listening, is_local
from fogmqtt.wire.topics import Topics

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")


def look(
    link: Link,
    topics: Topics,
    own: str,
    *,
    listens: bool,
    within_s: float,
    listen_s: float,
    group: str = "",
) -> BrokerFacts:
    """Look at the broker; returns what was found."""
    return Look(link, topics, own, listens=listens, group=group).take(within_s, listen_s)


def gateway(
    config: GatewayConfig, link: Link, name: str, *, listen_s: float = LISTEN_S
) -> tuple[list[Finding], BrokerFacts]:
    """Examine a gateway's configuration, its machine and its broker; `name` is this client's."""
    topics = Topics(config.wire.prefix)
    own = topics.gateway(name, "status")
    within_s = config.broker.connect_timeout_s
    facts = look(
        link,
        topics,
        own,
        listens=True,
        within_s=within_s,
        listen_s=listen_s,
        group=config.gateway.group,
    )
    return [*_gateway(config, facts)], facts


def _gateway(config: GatewayConfig, facts: BrokerFacts) -> Iterator[Finding]:
    settings = config.gateway
    yield machine.clock()
    yield from machine.disk((settings.spool, settings.outbox, settings.inbox))
    yield from machine.power()
    if config.dashboard.enabled != "never":
        host, number = parse_listen(config.dashboard.listen)
        yield from _present([machine.port("dashboard.listen", host, number)])
    yield from _broker(config.broker, facts, config.wire.max_message_bytes)
    if not facts.refusal:
        has_group = bool(settings.group)
        yield broker_checks.devices(facts)
        yield from broker_checks.twins(facts)
        others = broker_checks.several_gateways(facts, settings.id, has_group=has_group)
        yield from _present(
            [
                others,
                broker_checks.shared(facts),
                broker_checks.versions(facts, __version__),
            ]
        )
        yield from broker_checks.clocks(facts)


def device(
    config: DeviceConfig, link: Link, name: str, *, listen_s: float = LISTEN_S
) -> list[Finding]:
    """Examine a device's machine and its broker; `name` is the device's id."""
    topics = Topics(config.wire.prefix)
    # An access list forbids it, and then there is no echo; the load is measured nevertheless.
    own = topics.device(name, "doctor")
    within_s = config.broker.connect_timeout_s
    facts = look(link, topics, own, listens=True, within_s=within_s, listen_s=listen_s)
    return [*_device(config, facts)]


def _device(config: DeviceConfig, facts: BrokerFacts) -> Iterator[Finding]:
    yield from machine_of_device()
    yield from _broker(config.broker, facts, config.wire.max_message_bytes)
    if not facts.refusal:
        yield broker_checks.gateways(facts)
        yield from broker_checks.twins(facts)
        yield from broker_checks.clocks(facts)


def machine_of_device() -> Iterator[Finding]:
    """Examine the board itself."""
    yield machine.clock()
    yield from machine.disk(("/",))
    yield from machine.power()


def _broker(settings: BrokerSettings, facts: BrokerFacts, tile_bytes: int) -> Iterator[Finding]:
    yield from _local_broker(settings.urls)
    yield broker_checks.broker(facts)
    if facts.refusal:
        return
    found = (
        broker_checks.taken_over(facts),
        broker_checks.message_limit(facts, tile_bytes),
        broker_checks.counters(facts),
        broker_checks.delay(facts),
        broker_checks.link_rate(facts),
    )
    yield from _present(found)


def _local_broker(urls: Iterable[str]) -> Iterator[Finding]:
    """Judge a broker that is to run on this machine."""
    for url in urls:
        if not is_local(url):
            continue
        address = parse_url(url)
        tables = [machine.read_table(name) for name in _TABLES]
        yield from _present([machine.reach(address.port, tables)])
        speaks_otherwise = address.tls or address.path
        if is_listening(url) and not speaks_otherwise and not is_broker(url):
            yield fault(
                "port taken",
                f"the program at {address} is no MQTT broker",
                "stop it (ss -ltnp shows its name), or name the broker's port in broker.url",
            )


def _present(found: Iterable[Finding | None]) -> Iterator[Finding]:
    return (one for one in found if one is not None)
