"""Checks of a serving gateway's configuration, made before it starts."""

from __future__ import annotations

from pathlib import Path

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import ConfigError, PipelineError, UsageError
from fogmqtt.gateway.server.destinations import WORDS, Destinations, parse_destinations
from fogmqtt.gateway.server.http_post import check_url, read_secret, tls_context
from fogmqtt.operators.api.pipeline import parse, parse_post


def _is_same_folder(inbox: str, outbox: str) -> bool:
    return bool(inbox and outbox) and Path(inbox).resolve() == Path(outbox).resolve()


def check_outbox(config: GatewayConfig) -> None:
    """Raise ConfigError if results have no folder, or the inbox as their folder."""
    gateway = config.gateway
    if _is_same_folder(gateway.inbox, gateway.outbox):
        raise ConfigError(
            f"gateway.outbox: {gateway.outbox} is the inbox, so that every result would be the "
            "next image; name another folder"
        )
    for text, destinations in _all_destinations(config):
        from_inbox = bool(gateway.inbox)
        if destinations.to_outbox(from_inbox=from_inbox) and not gateway.outbox:
            raise ConfigError(
                f"gateway.outbox: {text!r} delivery needs a folder for results; name one, "
                "or set gateway.deliver: reply"
            )


def check_deliveries(config: GatewayConfig) -> None:
    """Raise ConfigError for an unknown place of results, or a callback that cannot be called."""
    for name, url in config.callbacks.items():
        if name in WORDS:
            raise ConfigError(f"callbacks.{name}: {name!r} has a meaning; give it another name")
        try:
            check_url(url)
        except ConfigError as problem:
            raise ConfigError(f"callbacks.{name}: {problem}") from None
    if config.callback.secret_file:
        read_secret(config.callback.secret_file)
    if config.callback.ca:
        tls_context(config.callback.ca)
    called = {name for _, one in _all_destinations(config) for name in one.callbacks}
    if called and not (config.gateway.spool or config.gateway.inbox):
        raise ConfigError(
            "gateway.spool: callbacks wait there until the receiver has them; name a folder"
        )
    for name in sorted(config.callbacks.keys() - called):
        raise ConfigError(
            f"callbacks.{name}: nothing is sent there; name it in gateway.deliver or deliveries"
        )


def check_retention(config: GatewayConfig) -> None:
    """Raise ConfigError if old files are to be deleted and nobody knows which are ours."""
    settings = config.gateway
    wanted = settings.outbox_keep_s or settings.done_keep_s or settings.min_free_bytes
    if wanted and not (settings.spool or settings.inbox):
        raise ConfigError(
            "gateway.spool: it remembers which files the gateway wrote, so that no other is "
            "deleted; name a folder, or leave out outbox_keep_s, done_keep_s and min_free_bytes"
        )


def _all_destinations(config: GatewayConfig) -> list[tuple[str, Destinations]]:
    """All places of results that the configuration names. Raises ConfigError."""
    texts = [(f"deliveries.{name}", text, name) for name, text in config.deliveries.items()]
    general = config.gateway.deliver
    others = [name for name in config.pipelines if name not in config.deliveries]
    texts += [("gateway.deliver", general, name) for name in others]
    if config.pipeline not in config.pipelines and config.gateway.inbox:
        texts.append(("gateway.deliver", general, ""))
    found = []
    for key, text, pipeline in texts:
        try:
            found.append((text, parse_destinations(text, config.callbacks, pipeline)))
        except UsageError as problem:
            raise ConfigError(f"{key}: {problem}") from None
    return found


def check_pipelines(config: GatewayConfig) -> None:
    """Parse all configured pipelines. Raises ConfigError for an invalid one."""
    texts = {f"pipelines.{name}": text for name, text in config.pipelines.items()}
    texts["pipeline"] = config.chosen(config.pipeline).text
    for key, text in texts.items():
        try:
            parse(text)
        except PipelineError as problem:
            raise ConfigError(f"{key}: {problem}") from None
    try:
        parse_post(config.post)
    except PipelineError as problem:
        raise ConfigError(str(problem)) from None
