"""The conformance process, as its parent sees it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final, Literal, Self

import msgspec

from fogmqtt.conformance.report import ChildMessage, ChildOutput
from fogmqtt.parent import child_path
from fogmqtt.workers.exit_status import exit_text
from fogmqtt.workers.memory_limit import ONE_BLAS_THREAD

_CHUNK = 65536
_DECODER: Final = msgspec.json.Decoder(ChildMessage)


class ConformanceChild:
    """A process that checks the operators of these names, or all of them.

    Use it as a context: the process is killed when the context ends. With the entry point
    `try_imports`, it only imports the plug-ins, those of packages too, without those in `fatal`.

    `modules` are the plug-ins to import. Operators may take `memory_mb` megabytes of memory, or
    all that is free for 0. Raises OSError if the process cannot be started.
    """

    def __init__(
        self,
        modules: Sequence[str],
        names: Sequence[str],
        memory_mb: int = 0,
        *,
        entry_point: Literal["main", "try_imports"] = "main",
        fatal: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        # The child uses its parent's module path: `-m` and scripts put different folders first.
        code = (
            f"import sys; sys.path[:] = {child_path()!r}; "
            f"from fogmqtt.parent import end_with_parent; end_with_parent({os.getpid()}); "
            f"from fogmqtt.conformance.process import {entry_point}; "
            f"from fogmqtt.operators.api.registry import plug_in; "
            f"plug_in({tuple(modules)!r}, {dict(fatal)!r}); "
            f"{entry_point}(sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(memory_mb), *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=ONE_BLAS_THREAD | os.environ,
            process_group=0,  # the parent alone decides what Ctrl-C at the terminal does
        )

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
        """Kill the process. Any thread may call this, any number of times."""
        self._process.kill()

    def collect(
        self, timeout_s: float, on_message: Callable[[ChildOutput], None] = lambda _: None
    ) -> ChildOutput:
        """Read messages until the process ends, or sends none for `timeout_s` seconds.

        `on_message` gets the output so far after each message.
        """
        output = ChildOutput()
        try:
            for line in self._lines(timeout_s):
                output.record(_DECODER.decode(line))
                on_message(output)
            output.ending = exit_text(self._process.wait(timeout_s))
        except (TimeoutError, subprocess.TimeoutExpired):
            output.ending = f"took over {timeout_s:g} s"
        except msgspec.MsgspecError as problem:
            output.ending = f"sent an invalid message: {problem}"
        return output

    def _lines(self, timeout_s: float) -> Iterator[bytes]:
        """Yield lines until the process closes its output. Raises TimeoutError."""
        out = self._process.stdout
        assert out is not None  # noqa: S101  # a pipe, see above
        poll = select.poll()
        poll.register(out, select.POLLIN)
        rest = b""
        while poll.poll(timeout_s * 1000):
            more = os.read(out.fileno(), _CHUNK)
            if not more:
                return
            *complete, rest = (rest + more).split(b"\n")
            yield from complete
        raise TimeoutError
