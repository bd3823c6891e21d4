"""The words of `StreamSettings.output`, and the output that each means.

topic          the frame topic, or the facts topic of a measuring pipeline
folder:PATH    a file for each result
file:PATH.mp4  a video
facts:PATH     a line of JSON for each result
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fogmqtt.config import StreamSettings
from fogmqtt.errors import ConfigError
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.streams.file_outputs import FactsOutput, VideoOutput
from fogmqtt.gateway.streams.outputs import PublishedFrame, StreamOutput
from fogmqtt.gateway.streams.stream_topics import TopicOutput
from fogmqtt.gateway.threads import Threads
from fogmqtt.images.encode import encode
from fogmqtt.images.files import write_bytes
from fogmqtt.images.result_format import ResultFormat, parse_result_format
from fogmqtt.operators.api.measuring import as_json
from fogmqtt.wire.topics import Topics


@dataclass(frozen=True, slots=True)
class OutputParts:
    """What outputs are made with."""

    name: str
    settings: StreamSettings
    link: BrokerLink
    topics: Topics
    threads: Threads
    #: What follows the colon of the word.
    value: str = ""

    @property
    def form(self) -> ResultFormat:
        """The format of image files."""
        return parse_result_format(self.settings.format)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of output."""

    make: Callable[[OutputParts], StreamOutput]
    #: What the value after the colon is; empty if there is none.
    value: str = ""
    example: str = ""
    #: What the value ends with.
    suffix: str = ""
    takes_facts: bool = True


def _topic(parts: OutputParts) -> StreamOutput:
    return TopicOutput(parts.name, parts.link, parts.topics, parts.threads, parts.form)


def _folder(parts: OutputParts) -> StreamOutput:
    return FolderOutput(Path(parts.value), parts.threads, parts.form)


def _video(parts: OutputParts) -> StreamOutput:
    return VideoOutput(parts.value)


def _facts(parts: OutputParts) -> StreamOutput:
    return FactsOutput(parts.value)


_KINDS = {
    "topic": _Kind(_topic),
    "folder": _Kind(_folder, value="the path of a folder", example="out"),
    "file": _Kind(
        _video,
        value="the path of a video",
        example="yard-%Y%m%d.mp4",
        suffix=".mp4",
        takes_facts=False,
    ),
    "facts": _Kind(_facts, value="the path of a file", example="yard.jsonl"),
}


def check_output(word: str, *, measures: bool) -> None:
    """Raise ConfigError if no output is meant by a word, or if it cannot take facts."""
    kind_name, _, value = word.partition(":")
    kind = _KINDS.get(kind_name)
    if kind is None:
        known = ", ".join(f"{name}:…" if one.value else name for name, one in _KINDS.items())
        raise ConfigError(f"output {word!r} is unknown; use one of {known}")
    if bool(value) != bool(kind.value):
        wanted = (
            f"give {kind.value}, as in {kind_name}:{kind.example}"
            if kind.value
            else "it takes no value"
        )
        raise ConfigError(f"{word!r}: {wanted}")
    if not value.endswith(kind.suffix):
        raise ConfigError(f"{word!r}: the path of a video ends with {kind.suffix}")
    if measures and not kind.takes_facts:
        raise ConfigError(
            f"{word!r} takes pictures, and the pipeline gives facts; use topic or facts:…, or draw "
            "the facts by another pipeline"
        )


def open_output(word: str, parts: OutputParts) -> StreamOutput:
    """Return the output that a word means, which `check_output` has checked."""
    kind_name, _, value = word.partition(":")
    made = OutputParts(parts.name, parts.settings, parts.link, parts.topics, parts.threads, value)
    return _KINDS[kind_name].make(made)


class FolderOutput:
    """Writes a file for each result."""

    needs_original = False

    def __init__(self, folder: Path, threads: Threads, form: ResultFormat) -> None:
        self._folder = ResultFolder(folder, form)
        self._threads = threads

    async def publish(self, frame: PublishedFrame) -> None:
        """Write a file. Raises ImageError and OSError."""
        await self._threads.apart(partial(self._folder.write, frame), "stream folder")

    async def close(self) -> None:
        """Nothing is open."""


class ResultFolder:
    """A folder with a file for each result: an image, or facts as JSON.

    A file's number is the frame's `seq` after the highest number that was there before the first
    one, so that the results of an earlier start stay.
    """

    def __init__(self, folder: Path, form: ResultFormat) -> None:
        self._folder = folder
        self._form = form
        self._before: int | None = None

    def write(self, frame: PublishedFrame) -> None:
        """Write the file of a result. Raises ImageError and OSError."""
        if self._before is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._before = self._highest(frame.stream)
        name = f"{frame.stream}-{self._before + frame.seq:08d}"
        if frame.image is None:
            write_bytes(self._folder / f"{name}.json", as_json(frame.facts or {}))
            return
        data = encode([frame.image], self._form).data
        write_bytes(self._folder / f"{name}{self._form.suffix}", data)

    def _highest(self, stream: str) -> int:
        """Return the highest number of a stream's files, with any suffix; 0 if there is none."""
        number = re.compile(rf"{re.escape(stream)}-(\d+)\.\w+")
        found = (number.fullmatch(path.name) for path in self._folder.iterdir())
        return max((int(one[1]) for one in found if one is not None), default=0)
