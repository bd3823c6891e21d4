"""Which of two versions of fogmqtt is older."""

from __future__ import annotations


def is_older(version: str, other: str) -> bool:
    """Return whether a version such as 0.2.1 comes before another one."""
    return _numbers(version) < _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
