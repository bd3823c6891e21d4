"""`python -m fogmqtt.examination.process [OPERATOR…]`: a line of JSON for each operator.

A line for each plug-in comes before, and then one with the names and versions. Whoever reads along
knows how far it came.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from fogmqtt.examination.findings import Began, Importing
from fogmqtt.operators import catalog


def main(names: Sequence[str]) -> None:
    # What operators print is not ours to say.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        _examine(names, out)


def _examine(names: Sequence[str], out: BinaryIO) -> None:
    from fogmqtt.examination.fingerprint import examine, versions
    from fogmqtt.images.cv import one_thread

    one_thread()
    catalog.import_plug_ins(lambda module: _say(out, Importing(module)))
    names = names or catalog.names()
    _say(out, Began(list(names), versions(), list(catalog.problems())))
    for name in names:
        _say(out, examine(name))


def _say(out: BinaryIO, what: object) -> None:
    out.write(msgspec.json.encode(what) + b"\n")
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
