"""`python -m fogmqtt.conformance.process MEGABYTES [OPERATOR…]`: a line of JSON for each operator.

A line for each plug-in comes before, and then one with the names and versions. Whoever reads along
knows how far it came.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from fogmqtt.conformance.report import Began, Importing, Worn
from fogmqtt.operators.api import registry
from fogmqtt.workers.memory_limit import MemoryLimit


def main(arguments: Sequence[str]) -> None:
    memory_mb, *names = arguments
    with _aside() as out:
        _examine(names, out, int(memory_mb))


def try_imports(arguments: Sequence[str]) -> None:
    """Only say which plug-in is imported next, and when all are."""
    with _aside() as out:
        import fogmqtt.conformance.fingerprint  # noqa: F401  # before the allowance is measured

        MemoryLimit(int(arguments[0]))
        registry.import_all(lambda module: _say(out, Importing(module)))
        _say(out, Began([], {}, []))


def _examine(names: Sequence[str], out: BinaryIO, memory_mb: int) -> None:
    from fogmqtt.conformance.fingerprint import examine, versions
    from fogmqtt.images.cv import one_thread

    one_thread()
    allowance = MemoryLimit(memory_mb)
    registry.import_plug_ins(lambda module: _say(out, Importing(module)))
    names = names or registry.names()
    _say(out, Began(list(names), versions(), list(registry.problems())))
    for name in names:
        _say(out, examine(name, memory_mb))
        if allowance.is_nearly_used_up():
            _say(out, Worn())
            return


def _aside() -> BinaryIO:
    """Where we speak: what operators print is not ours to say, and goes to stderr."""
    logging.getLogger("fogmqtt").setLevel(logging.ERROR)  # whoever asked says what is wrong
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def _say(out: BinaryIO, what: object) -> None:
    try:
        out.write(msgspec.json.encode(what) + b"\n")
        out.flush()
    except BrokenPipeError:
        os._exit(0)  # whoever asked is gone


if __name__ == "__main__":
    main(sys.argv[1:])
