"""What a serving gateway's configuration must hold before its doors open."""

from __future__ import annotations

from pathlib import Path

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import ConfigError, PipelineError
from fogmqtt.operators.api.pipeline import parse, parse_post


def _same(inbox: str, outbox: str) -> bool:
    return bool(inbox and outbox) and Path(inbox).resolve() == Path(outbox).resolve()


def check_outbox(config: GatewayConfig) -> None:
    """Raises ConfigError where results have no place of their own."""
    gateway = config.gateway
    if _same(gateway.inbox, gateway.outbox):
        raise ConfigError(
            f"gateway.outbox: {gateway.outbox} is the inbox, so that every result would be the "
            "next image; name another folder"
        )
    needed = gateway.deliver in ("outbox", "both") or (gateway.deliver == "auto" and gateway.inbox)
    if needed and not gateway.outbox:
        raise ConfigError(
            f"gateway.outbox: {gateway.deliver!r} delivery needs a folder for results; name one, "
            "or set gateway.deliver: reply"
        )


def check_pipelines(config: GatewayConfig) -> None:
    """A typing error is found at the start, not with the first image. Raises ConfigError."""
    known = {f"pipelines.{name}": text for name, text in config.pipelines.items()}
    known["pipeline"] = config.pipelines.get(config.pipeline, config.pipeline)
    for key, text in known.items():
        try:
            parse(text)
        except PipelineError as problem:
            raise ConfigError(f"{key}: {problem}") from None
    try:
        parse_post(config.post)
    except PipelineError as problem:
        raise ConfigError(str(problem)) from None
