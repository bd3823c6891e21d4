"""Converts one value to its type, and describes the expected type in errors."""

from __future__ import annotations

import contextlib
import math
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from fogmqtt.errors import ConfigError

#: Keys, or sections, whose wrong value may be a secret that stands in the wrong line.
_SECRET = ("group", "broker")
#: What `typing.get_origin` returns for a union, however it is written.
_UNIONS = (Union, UnionType)


def convert(value: object, hint: Any, origin: str, key: tuple[str, ...]) -> Any:
    """Return a value of a YAML file as the type `hint`.

    Raises ConfigError, which names the origin, if the value is not of the type.
    """
    try:
        return _typed(value, hint, strict=True)
    except _Mistyped:
        raise ConfigError(f"{origin}: {_mismatch(value, hint, key)}") from None


def convert_text(text: str, hint: Any, variable: str, key: tuple[str, ...]) -> Any:
    """Return the text of an environment variable as the type `hint`.

    Raises ConfigError, which names the variable, if the text is not of the type.
    """
    if get_origin(hint) is tuple and not text.lstrip().startswith("["):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    takes_list = any(get_origin(member) is tuple for member in get_args(hint))
    as_list = takes_list and text.lstrip().startswith("[")
    if not as_list:
        with contextlib.suppress(_Mistyped):
            return _typed(text, hint, strict=False)
    from fogmqtt.config.text import scalar  # YAML is slow to load, and few variables need it

    with contextlib.suppress(_Mistyped):
        return _typed(scalar(text), hint, strict=False)
    raise ConfigError(f"{variable}: {_mismatch(text, hint, key)}")


class _Mistyped(Exception):
    """A value is not of the type. The caller raises the error for the user."""


def _typed(value: object, hint: Any, *, strict: bool) -> Any:
    if get_origin(hint) is Literal:
        return _option(value, get_args(hint))
    if get_origin(hint) in _UNIONS:
        for member in get_args(hint):
            with contextlib.suppress(_Mistyped):
                return _typed(value, member, strict=strict)
        raise _Mistyped
    try:
        typed = msgspec.convert(value, hint, strict=strict)
    except msgspec.ValidationError:
        raise _Mistyped from None
    if isinstance(typed, float) and not math.isfinite(typed):
        raise _Mistyped
    return typed


def _option(value: object, options: tuple[object, ...]) -> object:
    for option in options:
        if str(value) == str(option):  # the protocol may be written as 5 or "5"
            return option
    raise _Mistyped


def _mismatch(value: object, hint: Any, key: tuple[str, ...]) -> str:
    if _may_be_secret(key):
        return "expected text; put it in quotes (the value is not shown)"
    quote = (
        "; put it in quotes"
        if str in (hint, *get_args(hint)) and not isinstance(value, dict | list)
        else ""
    )
    return f"expected {_expected(hint)}, got {describe(value)}{quote}"


def _expected(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return _either([str(option) or '""' for option in get_args(hint)])
    if get_origin(hint) in _UNIONS:
        return _either([_expected(member) for member in get_args(hint)])
    if get_origin(hint) is tuple:
        return "a list of texts, as in [one, two]"
    kind, *limits = get_args(hint) or (hint,)
    words = {str: "text", int: "a whole number", float: "a number"}[kind]
    return " ".join((words, *(_limits(limit) for limit in limits)))


def _either(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _limits(meta: msgspec.Meta) -> str:
    named = (("over", meta.gt), ("from", meta.ge), ("up to", meta.le))
    return " ".join(f"{word} {limit}" for word, limit in named if limit is not None)


def _may_be_secret(key: tuple[str, ...]) -> bool:
    return bool(key) and ("password" in key[-1] or key[-1] in _SECRET)


def shown(value: object, key: tuple[str, ...]) -> str:
    """Return a short description of a wrong value, or its type where it may be a secret."""
    return f"a value of type {type(value).__name__}" if _may_be_secret(key) else describe(value)


def describe(value: object) -> str:
    """Return a short description of a value for an error: its text and its type."""
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{text[:60]}{'…' if len(text) > 60 else ''} ({type(value).__name__})"
