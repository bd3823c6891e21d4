"""A worker process, seen from the pool. For one thread; the process dies with that thread."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import msgspec

from fogmqtt.operators.api.registry import plug_ins
from fogmqtt.wire.messages import TileTask, encode
from fogmqtt.workers.channel import Memory, WorkerChannel, open_memory
from fogmqtt.workers.exit_status import exit_text
from fogmqtt.workers.process import DUMP, LONGEST_TRACEBACK, Reply

#: Seconds that a hanging worker gets to write its traceback.
_DUMP_S = 2.0


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: its exit code, negative for a signal, and the last it could say."""

    code: int
    traceback: str

    def __str__(self) -> str:
        return exit_text(self.code)


class Process:
    """Starts Python with `code` and these numbers: socket, memories, our process id, `memory_mb`.

    `nice` is how far it steps back for others. Raises OSError where the machine has no memory,
    descriptors or processes left.
    """

    def __init__(self, code: str, memory_mb: int = 0, nice: int = 0) -> None:
        with ExitStack() as opened:
            inward, outward, self._faults = (_memory(opened) for _ in range(3))
            ours, theirs = map(opened.enter_context, socket.socketpair())
            with theirs:
                descriptors = (inward, outward, self._faults)
                self._process = _start(code, theirs.fileno(), descriptors, memory_mb)
            self._opened = opened.pop_all()
        if nice:
            with suppress(ProcessLookupError):  # who asks it for a tile will hear
                os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)
        # Its outward is our inward.
        self._channel = WorkerChannel(ours, inward=Memory(outward), outward=Memory(inward))

    def fileno(self) -> int:
        """For poll: readable where it answered or died."""
        return self._channel.fileno()

    def speaks(self, within_s: float = 0.0) -> bool:
        """Wait for its answer or its death; False where neither came within so many seconds."""
        watch = select.poll()
        watch.register(self, select.POLLIN)
        return bool(watch.poll(math.ceil(within_s * 1000)))

    def tell(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a few bytes, and files that it gets, too. Raises OSError where it is gone."""
        self._channel.tell(message, descriptors)

    def hear(self) -> bytes | None:
        """Wait for what it tells, None where it is gone."""
        heard = self._channel.hear()
        return None if heard is None else heard[0]

    def kill(self) -> None:
        """Have it die, with all that it started. Any thread, until `end` was called."""
        # Of one that died by itself this changes nothing, its exit code included.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, *, asking_why: bool = False) -> ExitStatus:
        """End it, if it has not done so, with all that it started.

        `asking_why` lets it write where it is first.
        """
        if asking_why:
            self._dump()
        self.kill()
        code = self._process.wait()
        dump = os.pread(self._faults, 4 * LONGEST_TRACEBACK, 0).decode("utf-8", "replace")
        self._opened.close()
        return ExitStatus(code, as_traceback(dump)[-LONGEST_TRACEBACK:])

    def _dump(self) -> None:
        self._process.send_signal(DUMP)
        watch = select.poll()
        watch.register(self, 0)  # it ends after it wrote
        watch.poll(_DUMP_S * 1000)


class Child(Process):
    """Works on tiles; it loads OpenCV while its first tile waits in the channel.

    `memory_mb` is what its operators may take, 0 for whatever there is. Raises OSError as
    `Process`.
    """

    def __init__(self, memory_mb: int, nice: int = 0) -> None:
        super().__init__(
            "from fogmqtt.workers.process import main; "
            "from fogmqtt.operators.api.registry import plug_in; "
            f"plug_in({plug_ins()!r}); main()",
            memory_mb,
            nice,
        )
        self._replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)

    def ask(self, task: TileTask) -> None:
        """Have it do the tile. Raises OSError where it died or no memory is left."""
        header = encode(msgspec.structs.replace(task, pixels=memoryview(b"")))
        self._channel.send(header, task.pixels)

    def answer(self) -> tuple[Reply, memoryview] | None:
        """Wait for its answer and a result's bytes, None where it died.

        Raises msgspec.MsgspecError for what no worker of ours says.
        """
        received = self._channel.receive()
        if received is None:
            return None
        return self._replies.decode(received[0]), memoryview(bytes(received[1]))


def as_traceback(dump: str) -> str:
    """What faulthandler wrote, as Python writes it elsewhere: the most recent call last."""
    lines: list[str] = []
    frames: list[str] = []
    for line in dump.splitlines():
        if line.startswith("  File "):
            frames.insert(0, line)
        elif not line.startswith("Extension modules: "):
            lines += [*frames, line.replace("call first)", "call last)")]
            frames = []
    return "\n".join([*lines, *frames]).strip()


def _memory(opened: ExitStack) -> int:
    descriptor = open_memory()
    opened.callback(os.close, descriptor)
    return descriptor


def _start(
    code: str, end: int, descriptors: tuple[int, ...], memory_mb: int
) -> subprocess.Popen[bytes]:
    # The parent's path and not its own: `-m` and scripts differ in what they put first.
    code = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    numbers = (end, *descriptors, os.getpid(), memory_mb)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        stdout=2,  # what operators print is not the program's output
        pass_fds=(end, *descriptors),
        process_group=0,  # Ctrl-C at the terminal is the parent's to decide
    )
