"""Pipelines by the names that the configuration gives them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fogmqtt.errors import PipelineError

if TYPE_CHECKING:
    from fogmqtt.config import GatewayConfig

#: A text that may be the name of a pipeline.
_WORD = re.compile(r"[\w-]+")


def find_pipeline(config: GatewayConfig, given: str | None) -> str:
    """Return the operators of a pipeline's name, or what was given if it is operators.

    None stands for the configured default. Raises PipelineError for a word that is neither.
    """
    from fogmqtt.operators.api import registry

    text = config.pipeline if given is None else given
    name = text.strip()
    if name in config.pipelines:
        return _configured_pipeline(config, name)
    if _WORD.fullmatch(name) and name not in registry.names():
        if why := registry.refusal(name):
            raise PipelineError(why)
        suggestion = registry.suggestion(name, (*config.pipelines, *registry.names()))
        skipped = "".join(f"; {problem}" for problem in registry.problems())
        raise PipelineError(f"no pipeline or operator is called {name!r}; {suggestion}{skipped}")
    return text


def _configured_pipeline(config: GatewayConfig, name: str) -> str:
    from fogmqtt.operators.api.pipeline import parse

    try:
        parse(config.pipelines[name])
    except PipelineError as problem:
        raise PipelineError(f"pipelines.{name}: {problem}") from None
    return config.pipelines[name]


def find_priority(config: GatewayConfig, given: str | None, priority: int | None) -> int:
    """Return the priority, or if it is None the configured one of the pipeline that was given."""
    if priority is not None:
        return priority
    name = config.pipeline if given is None else given
    return config.priorities.get(name.strip(), 0)
