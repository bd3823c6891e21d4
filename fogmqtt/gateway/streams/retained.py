"""Which topics of streams hold something at the broker, so that those of others can be cleared."""

from __future__ import annotations

from typing import Final

from fogmqtt.config import GatewayConfig
from fogmqtt.gateway.streams.streams import event_grouping
from fogmqtt.wire.topics import Topics, is_id

_ALWAYS: Final = ("status", "enabled", "source", "state")
_MOTION: Final = "motion"
_PREVIEW: Final = "preview"
_SNAPSHOT: Final = "snapshot"


def retained_topics(config: GatewayConfig, topics: Topics) -> frozenset[str]:
    """Return the retained topics of the configured streams."""
    found = set[str]()
    for name, settings in config.streams.items():
        found.update(topics.stream(name, leaf) for leaf in _ALWAYS)
        if settings.preview.fps > 0:
            found.add(topics.frame(name, _PREVIEW))
        if event_grouping(config, settings) is not None:
            found |= {topics.stream(name, _MOTION), topics.frame(name, _SNAPSHOT)}
    return frozenset(found)


def is_retained_topic(topic: str, topics: Topics) -> bool:
    """Return whether a topic is one on which a stream of any name retains something."""
    *_, name, leaf = ("", "", *topic.split("/"))
    if not is_id(name):
        return False
    if leaf in (_PREVIEW, _SNAPSHOT):
        return topic == topics.frame(name, leaf)
    return leaf in (*_ALWAYS, _MOTION) and topic == topics.stream(name, leaf)
