"""`python -m fogmqtt.conformance.process MEGABYTES [OPERATOR…]` checks operators.

It writes one line of JSON (a `ChildMessage`) before it imports each plug-in, one with the
operators' names and the versions, and one for each operator. So its parent knows what the process
was doing if it ends.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from fogmqtt.conformance.order import in_order
from fogmqtt.conformance.report import CannotCheck, ChecksStarted, ImportStarted, MemoryUsedUp
from fogmqtt.operators.api import registry
from fogmqtt.workers.memory_limit import MemoryLimit


def main(arguments: Sequence[str]) -> None:
    """Check the named operators, or all."""
    memory_mb, *names = arguments
    with _redirect_stdout() as out:
        try:
            _check_operators(names, out, int(memory_mb))
        except ImportError as problem:  # OpenCV, numpy or a library of theirs
            _send(out, CannotCheck(str(problem)))


def try_imports(arguments: Sequence[str]) -> None:
    """Import all plug-ins, and report each before its import and the end of all."""
    with _redirect_stdout() as out:
        import fogmqtt.conformance.fingerprint  # noqa: F401  # before the memory is measured

        MemoryLimit(int(arguments[0]))
        registry.import_all(lambda module: _send(out, ImportStarted(module)))
        _send(out, ChecksStarted([], {}, []))


def _check_operators(names: Sequence[str], out: BinaryIO, memory_mb: int) -> None:
    from fogmqtt.conformance.fingerprint import check_operator, versions
    from fogmqtt.images.cv import one_thread

    one_thread()
    limit = MemoryLimit(memory_mb)
    registry.import_plug_ins(lambda module: _send(out, ImportStarted(module)))
    names = names or in_order(registry.names())
    _send(out, ChecksStarted(list(names), versions(), list(registry.problems())))
    for name in names:
        _send(out, check_operator(name, memory_mb))
        if limit.is_nearly_used_up():
            _send(out, MemoryUsedUp())
            return


def _redirect_stdout() -> BinaryIO:
    """Return the original stdout, for messages; what operators print goes to stderr instead."""
    logging.getLogger("fogmqtt").setLevel(logging.ERROR)  # the parent logs the problems
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def _send(out: BinaryIO, message: object) -> None:
    try:
        out.write(msgspec.json.encode(message) + b"\n")
        out.flush()
    except BrokenPipeError:
        os._exit(0)  # the parent has ended


if __name__ == "__main__":
    main(sys.argv[1:])
