"""`connect` and `aconnect`: find the configuration, and open a fog."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from fogmqtt.client.async_fog import AsyncFog
from fogmqtt.client.fog import Fog
from fogmqtt.client.operators import shared
from fogmqtt.config import BrokerSettings, GatewayConfig, load_gateway
from fogmqtt.errors import ConfigError
from fogmqtt.images.arrays import Colour, check_colour
from fogmqtt.images.cv import rounds_by_ipp
from fogmqtt.setup.link import with_brokers
from fogmqtt.transport.link import parse_url

#: A configuration's file, the url of a broker, "local", or a configuration itself.
Where: TypeAlias = "str | os.PathLike[str] | GatewayConfig | None"

LOCAL: Final = "local"
_CONFIG: Final = Path("config.yaml")


def connect(
    where: Where = None,
    *,
    broker: str | Sequence[str] | None = None,
    colour: Colour = "bgr",
) -> Fog:
    """Connect to a fleet, and return a `Fog` to process images with.

    Parameters
    ----------
    where :
        The path of a configuration; by default `config.yaml` in the working directory, if there is
        one. Or "local": no broker, and the cores of this machine. Or the url of a broker. The
        environment counts as for `fog-gateway`: FOGMQTT_BROKER__URL is broker.url.
    broker :
        The url of a broker, or several that are tried in order, in place of the configured one.
    colour :
        The order of colours in arrays, in and out: "bgr" as OpenCV, or "rgb" as Pillow.

    Raises ConfigError, and NoBroker (an OSError, too) if no broker answers.
    """
    config, is_local = _configure(where, broker)
    colour = check_colour(colour)
    _warn_of_ipp()
    return Fog(config, is_local=is_local, colour=colour)


def aconnect(
    where: Where = None,
    *,
    broker: str | Sequence[str] | None = None,
    colour: Colour = "bgr",
) -> AsyncFog:
    """As `connect`, for coroutines: `async with fogmqtt.aconnect() as fog`."""
    return AsyncFog(lambda: connect(where, broker=broker, colour=colour))


def _configure(where: Where, broker: str | Sequence[str] | None) -> tuple[GatewayConfig, bool]:
    """Return the configuration, and whether there is no broker."""
    urls = [broker] if isinstance(broker, str) else list(broker or ())
    if isinstance(where, GatewayConfig):
        config, is_local = where, False
    else:
        is_local = where == LOCAL
        if isinstance(where, str) and "://" in where:
            if urls:
                raise ConfigError(f"connect: {where} and broker={broker!r} both name a broker")
            urls, where = [where], None
        path = _existing(_CONFIG if where is None or is_local else Path(where), where)
        config = load_gateway(path, shared.environment())
    if is_local:
        if urls:
            raise ConfigError(f"connect: 'local' works without a broker, not with {broker!r}")
        return _without_broker(config), True
    for url in urls:
        for each in url.split(","):
            parse_url(each.strip())
    return replace(config, broker=with_brokers(config.broker, urls)), False


def _existing(path: Path, where: Where) -> Path | None:
    """Return a configuration's path; None if it is the default one and not there."""
    if path.is_file():
        return path
    if where is None or where == LOCAL:
        return None
    raise ConfigError(
        f"{path}: there is no such file; give the path of a configuration, 'local', or the url of "
        "a broker such as mqtt://192.168.1.10"
    )


def _without_broker(config: GatewayConfig) -> GatewayConfig:
    # Nobody is there whose rounding could differ.
    return replace(
        config,
        exact=False,
        broker=BrokerSettings(url=(), embedded="never"),
        gateway=replace(config.gateway, local="always", local_after=0.0),
    )


def _warn_of_ipp() -> None:
    if rounds_by_ipp():
        warnings.warn(
            "OpenCV was used before fogmqtt was imported, so what this machine does itself may "
            "round otherwise than devices do; import fogmqtt first",
            RuntimeWarning,
            stacklevel=3,
        )
