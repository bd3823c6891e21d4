"""Checks of a serving gateway's configuration, made before it starts."""

from __future__ import annotations

from pathlib import Path

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import ConfigError, PipelineError
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
    needs_outbox = gateway.deliver in ("outbox", "both") or (
        gateway.deliver == "auto" and gateway.inbox
    )
    if needs_outbox and not gateway.outbox:
        raise ConfigError(
            f"gateway.outbox: {gateway.deliver!r} delivery needs a folder for results; name one, "
            "or set gateway.deliver: reply"
        )


def check_pipelines(config: GatewayConfig) -> None:
    """Parse all configured pipelines. Raises ConfigError for an invalid one."""
    texts = {f"pipelines.{name}": text for name, text in config.pipelines.items()}
    texts["pipeline"] = config.pipelines.get(config.pipeline, config.pipeline)
    for key, text in texts.items():
        try:
            parse(text)
        except PipelineError as problem:
            raise ConfigError(f"{key}: {problem}") from None
    try:
        parse_post(config.post)
    except PipelineError as problem:
        raise ConfigError(str(problem)) from None
