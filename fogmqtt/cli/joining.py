"""What lets boards find a serving gateway and join it: the join port, and the announcement."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fogmqtt.cli.leftovers import LeftoverWatch
from fogmqtt.config import GatewayConfig
from fogmqtt.config.addresses import parse_listen
from fogmqtt.transport.link import parse_url
from fogmqtt.transport.probe import is_listening, is_local

if TYPE_CHECKING:
    from fogmqtt.joining.notice import GatewayNotice, Withdraw
    from fogmqtt.joining.site import Site

log = logging.getLogger(__name__)

#: What announcing needs, of the extra `join`.
_PACKAGES: Final = ("zeroconf", "ifaddr")


@contextmanager
def joining_beside(config: GatewayConfig) -> Iterator[None]:
    """Announce a serving gateway during the block, and let invited boards join.

    Raises ConfigError.
    """
    with ExitStack() as stack:
        site = None
        if config.joining.folder:
            from fogmqtt.joining.port import JoinPort
            from fogmqtt.joining.site import Site

            site = Site.open(Path(config.joining.folder))
            host, port = parse_listen(config.joining.listen, "joining.listen")
            join_port = JoinPort(site, host, port)
            join_port.start()
            stack.callback(join_port.close)
            leftovers = LeftoverWatch(config.broker, config.wire.prefix)
            leftovers.start()
            stack.callback(leftovers.close)
        if config.joining.announce != "never":
            _announce(config, site, stack)
        yield


def _announce(config: GatewayConfig, site: Site | None, stack: ExitStack) -> None:
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        if site is not None or config.joining.announce == "always":
            log.warning(
                "boards do not find this gateway without %s: pip install 'fogmqtt[join]'",
                " and ".join(missing),
            )
        return
    from fogmqtt.joining.notice import GatewayAnnouncer

    announcer = GatewayAnnouncer(_notice_of(config, site), _announce_now)
    announcer.start()
    stack.callback(announcer.close)


def _announce_now(notice: GatewayNotice) -> Withdraw:
    # Most gateways have nothing to announce, and zeroconf needs 24 MB.
    from fogmqtt.joining.mdns import announce

    return announce(notice)


def _notice_of(config: GatewayConfig, site: Site | None) -> Callable[[], GatewayNotice | None]:
    """Return what says at each moment what to announce."""

    def notice() -> GatewayNotice | None:
        return _open_notice(config) if site is None else _site_notice(config, site)

    return notice


def _site_notice(config: GatewayConfig, site: Site) -> GatewayNotice | None:
    """Return what boards with an invitation look for."""
    from fogmqtt.joining.bundle import pin_of, utc_now
    from fogmqtt.joining.names import own_addresses
    from fogmqtt.joining.notice import GatewayNotice

    if site.is_loopback_only:
        if config.joining.announce == "auto":
            return None
        addresses: tuple[str, ...] = ("127.0.0.1",)
    else:
        addresses = _plain(site.settings.addresses) or own_addresses()
    return GatewayNotice(
        gateway=config.gateway.id,
        prefix=config.wire.prefix,
        addresses=tuple(one for one in addresses if ":" not in one),
        port=site.settings.port,
        tls=True,
        pin=pin_of(site.authority.pem),
        join_port=parse_listen(config.joining.listen)[1],
        asks=site.ledger.read().may_ask(utc_now()),
    )


def _open_notice(config: GatewayConfig) -> GatewayNotice | None:
    """Return what any board may use: a broker without passwords, if boards can reach it."""
    from fogmqtt.joining.names import own_addresses
    from fogmqtt.joining.notice import GatewayNotice

    broker = config.broker
    address = parse_url(broker.urls[0])
    if len(broker.urls) > 1 or broker.username or address.tls or address.path:
        return None
    if not is_local(broker.urls[0]):
        addresses = _plain((address.host,))
    else:
        reached = (one for one in own_addresses() if ":" not in one)
        addresses = tuple(one for one in reached if is_listening(f"mqtt://{one}:{address.port}"))
        if not addresses and config.joining.announce == "always":
            addresses = ("127.0.0.1",)
    if not addresses:
        return None
    return GatewayNotice(
        gateway=config.gateway.id,
        prefix=config.wire.prefix,
        addresses=addresses,
        port=address.port,
    )


def _plain(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the IPv4 addresses of names."""
    found: list[str] = []
    for host in hosts:
        try:
            infos = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            continue
        found.extend(str(info[4][0]) for info in infos)
    return tuple(dict.fromkeys(found))
