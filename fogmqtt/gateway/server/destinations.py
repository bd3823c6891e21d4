"""Where the result of an image goes, as a user writes it: `outbox latest office`."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from fogmqtt.errors import UsageError
from fogmqtt.wire.topics import is_id

#: What the words of the configuration mean; every other word is the name of a callback.
WORDS: Final = ("auto", "outbox", "reply", "both", "latest")
_LATEST: Final = "latest"


@dataclass(frozen=True, slots=True)
class Destinations:
    """The places of a result. `auto` is where the image came from."""

    auto: bool = False
    outbox: bool = False
    reply: bool = False
    #: The names of the topics that keep the newest result.
    latest: tuple[str, ...] = ()
    callbacks: tuple[str, ...] = ()

    def to_outbox(self, *, from_inbox: bool) -> bool:
        """Whether the result is written to the outbox."""
        return self.outbox or (self.auto and from_inbox)

    def to_reply(self, *, from_inbox: bool) -> bool:
        """Whether the result is published on the reply topics, if there is a reply name."""
        return self.reply or (self.auto and not from_inbox)


def parse_destinations(text: str, callbacks: Collection[str], pipeline: str = "") -> Destinations:
    """Return the destinations that a text names, for an image of this pipeline.

    Raises UsageError for an unknown word, and for `latest` without a name that it can have.
    """
    words = text.replace(",", " ").split()
    if not words:
        raise UsageError(f"no place for results; use words of: {', '.join(WORDS)}")
    latest, named = [], []
    for word in words:
        kind, equals, name = word.partition("=")
        if kind == _LATEST:
            latest.append(_latest_name(word, name if equals else pipeline))
        elif word in callbacks:
            named.append(word)
        elif word not in WORDS:
            raise UsageError(_unknown(word, callbacks))
    return Destinations(
        auto="auto" in words,
        outbox="outbox" in words or "both" in words,
        reply="reply" in words or "both" in words,
        latest=tuple(dict.fromkeys(latest)),
        callbacks=tuple(dict.fromkeys(named)),
    )


def _latest_name(word: str, name: str) -> str:
    if is_id(name):
        return name
    raise UsageError(
        f"{word!r} has no name for its topic; write {_LATEST}=NAME "
        "with 1 to 32 of a-z, 0-9, _ and -"
    )


def _unknown(word: str, callbacks: Collection[str]) -> str:
    known = [*WORDS, *callbacks]
    matches = difflib.get_close_matches(word, known, 1)
    help_text = f"did you mean {matches[0]}?" if matches else f"use words of: {', '.join(known)}"
    return f"{word!r} is no place for results and no callback; {help_text}"
