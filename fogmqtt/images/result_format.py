"""The format of a result's file with its options, as a user writes it: `jpeg quality=80`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fogmqtt.errors import ImageError, UsageError

#: The kinds of files, each with its suffixes; the first one is given to new files.
SUFFIXES: Final = {
    "png": (".png",),
    "jpeg": (".jpeg", ".jpg"),
    "webp": (".webp",),
    "bmp": (".bmp",),
    "tiff": (".tiff", ".tif"),
}
#: The options of each kind, each with its values: a range, or words.
_OPTIONS: Final[dict[str, dict[str, range | tuple[str, ...]]]] = {
    "png": {"compression": range(10)},
    "jpeg": {"quality": range(1, 101)},
    "webp": {"quality": range(1, 101)},
    "bmp": {},
    "tiff": {"compression": ("none", "deflate")},
}


@dataclass(frozen=True, slots=True)
class ResultFormat:
    """A kind of file: png, jpeg, webp, bmp or tiff."""

    kind: str
    #: Of jpeg and webp, 1 to 100; None for jpeg's usual 95 and for a lossless webp.
    quality: int | None = None
    #: Of png, 0 to 9; of tiff, none or deflate; None for the usual.
    compression: int | str | None = None

    @property
    def suffix(self) -> str:
        """The suffix of new files, such as ".png"."""
        return SUFFIXES[self.kind][0]

    @property
    def media_type(self) -> str:
        """The type of files for MQTT and HTTP, such as "image/png"."""
        return f"image/{self.kind}"


def parse_result_format(text: str) -> ResultFormat:
    """Return the format that a text such as "png" or "jpeg quality=80" describes.

    Raises UsageError, which names the wrong word and what it could be.
    """
    kind, *words = text.split() or [""]
    if kind not in SUFFIXES:
        raise UsageError(f"{text!r} is no format; use one of {', '.join(SUFFIXES)}")
    options: dict[str, int | str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in _OPTIONS[kind]:
            known = ", ".join(_OPTIONS[kind]) or "none"
            raise UsageError(f"{text!r}: {kind} has no option {name!r}; it has {known}")
        options[name] = _value(text, name, value, _OPTIONS[kind][name])
    quality, compression = options.get("quality"), options.get("compression")
    return ResultFormat(kind, quality if isinstance(quality, int) else None, compression)


def format_of_suffix(suffix: str) -> ResultFormat:
    """Return the format of files with a suffix such as ".png". Raises ImageError."""
    for kind, suffixes in SUFFIXES.items():
        if suffix.lower() in suffixes:
            return ResultFormat(kind)
    known = ", ".join(each for suffixes in SUFFIXES.values() for each in suffixes)
    raise ImageError(f"cannot write {suffix!r} files; use one of {known}")


def _value(text: str, name: str, value: str, allowed: range | tuple[str, ...]) -> int | str:
    if isinstance(allowed, tuple):
        if value in allowed:
            return value
        raise UsageError(f"{text!r}: {name} is one of {', '.join(allowed)}")
    if value.isascii() and value.isdigit() and int(value) in allowed:
        return int(value)
    raise UsageError(f"{text!r}: {name} is a number from {allowed[0]} to {allowed[-1]}")
