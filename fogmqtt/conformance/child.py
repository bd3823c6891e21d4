"""The process that examines, seen from outside."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final, Literal, Self

import msgspec

from fogmqtt.conformance.report import Attempt, Said
from fogmqtt.workers.exit_status import exit_text

_CHUNK = 65536
_SAID: Final = msgspec.json.Decoder(Said)


class ConformanceChild:
    """Examines the operators of these names, or all; a context, and gone at its end.

    With `try_imports` for its work, it only imports, of packages too; not what is `fatal`.

    `modules` are plugged in, and operators may take `memory_mb` of memory, 0 for what there is.
    Raises OSError where no process can be started.
    """

    def __init__(
        self,
        modules: Sequence[str],
        names: Sequence[str],
        memory_mb: int = 0,
        *,
        work: Literal["main", "try_imports"] = "main",
        fatal: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        # The parent's path and not its own: `-m` and scripts differ in what they put first.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from fogmqtt.conformance.process import {work}; "
            f"from fogmqtt.operators.api.registry import plug_in; "
            f"plug_in({tuple(modules)!r}, {dict(fatal)!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"{code}; {work}(sys.argv[1:])", str(memory_mb), *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C at the terminal is the parent's to decide
        )
        self._late = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def kill(self) -> None:
        """End it. Any thread, any number of times."""
        self._process.kill()

    def listen(self, patience_s: float) -> Attempt:
        """How far it comes: until it ends or says nothing for so many seconds."""
        tried = Attempt()
        try:
            for line in self._lines(patience_s):
                tried.note(_SAID.decode(line))
            tried.ending = self._ending()
        except msgspec.MsgspecError as problem:
            tried.ending = f"broke off: {problem}"
        return tried

    def _lines(self, patience_s: float) -> Iterator[bytes]:
        out = self._process.stdout
        assert out is not None  # noqa: S101  # a pipe, see above
        watch = select.poll()
        watch.register(out, select.POLLIN)
        rest = b""
        while watch.poll(patience_s * 1000):
            more = os.read(out.fileno(), _CHUNK)
            if not more:
                return
            *whole, rest = (rest + more).split(b"\n")
            yield from whole
        self._late = patience_s

    def _ending(self) -> str:
        if self._late:
            return f"took over {self._late:g} s"
        return exit_text(self._process.wait())
