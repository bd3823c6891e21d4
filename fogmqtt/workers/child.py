"""A child process, as its parent sees it. One thread owns it; the child ends with that thread."""

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

import msgspec

from fogmqtt.operators.api.registry import plug_ins
from fogmqtt.parent import child_path
from fogmqtt.wire.messages import TileTask, encode
from fogmqtt.workers.channel import SharedMemory, WorkerChannel, open_memory
from fogmqtt.workers.exit_status import ExitStatus
from fogmqtt.workers.memory_limit import ONE_BLAS_THREAD
from fogmqtt.workers.process import DUMP_SIGNAL, MAX_TRACEBACK_CHARS, Reply

#: Seconds that a hanging process may take to write its traceback.
_DUMP_S = 2.0


class ChildProcess:
    """Starts Python with `code` and these arguments: socket, memory files, parent id, `memory_mb`.

    `nice` is added to the niceness of the process. Raises OSError if the machine has no memory,
    descriptors or processes left.
    """

    def __init__(self, code: str, memory_mb: int = 0, nice: int = 0) -> None:
        with ExitStack() as opened:
            to_child, from_child, self._dump_file = (_open_memory(opened) for _ in range(3))
            ours, theirs = map(opened.enter_context, socket.socketpair())
            with theirs:
                descriptors = (to_child, from_child, self._dump_file)
                self._process = _start(code, theirs.fileno(), descriptors, memory_mb)
            self._opened = opened.pop_all()
        if nice:
            with suppress(ProcessLookupError):  # the next request to it fails
                os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)
        self._channel = WorkerChannel(
            ours, incoming=SharedMemory(from_child), outgoing=SharedMemory(to_child)
        )

    def fileno(self) -> int:
        """Return the descriptor for poll: readable if the child sent something or ended."""
        return self._channel.fileno()

    def is_readable(self, timeout_s: float = 0.0) -> bool:
        """Wait until the child sends something or ends; False if neither happens in time."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(math.ceil(timeout_s * 1000)))

    def send_message(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a short message and file descriptors. Raises OSError if the child ended."""
        self._channel.send_message(message, descriptors)

    def receive_message(self) -> bytes | None:
        """Wait for a short message of the child; None if the child ended."""
        received = self._channel.receive_message()
        return None if received is None else received[0]

    def receive_message_and_file(self) -> tuple[bytes, int | None] | None:
        """Wait for a short message, and a descriptor if one came along; None if the child ended.

        The caller closes the descriptor.
        """
        return self._channel.receive_message_and_file()

    def kill(self) -> None:
        """Kill the child and all processes that it started. Any thread may call it before `end`."""
        # It does not change the exit code of a child that ended by itself.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, *, dump_traceback: bool = False) -> ExitStatus:
        """Kill the child and all processes that it started, and release its resources.

        With `dump_traceback`, the child first writes the tracebacks of its threads.
        """
        if dump_traceback:
            self._request_dump()
        self.kill()
        code = self._process.wait()
        dump = os.pread(self._dump_file, 4 * MAX_TRACEBACK_CHARS, 0).decode("utf-8", "replace")
        self._opened.close()
        return ExitStatus(code, _as_traceback(dump)[-MAX_TRACEBACK_CHARS:])

    def _request_dump(self) -> None:
        self._process.send_signal(DUMP_SIGNAL)
        poll = select.poll()
        poll.register(self, 0)  # the child ends after it wrote
        poll.poll(_DUMP_S * 1000)


class WorkerProcess(ChildProcess):
    """Runs tasks. It loads OpenCV while its first task waits in the channel.

    `memory_mb` limits the memory of its operators; 0 means no limit. Raises OSError as
    `ChildProcess` does.
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

    def send_task(self, task: TileTask) -> None:
        """Send a task. Raises OSError if the process ended or no memory is left."""
        header = encode(msgspec.structs.replace(task, pixels=memoryview(b"")))
        self._channel.send(header, task.pixels)

    def receive_reply(self) -> tuple[Reply, memoryview] | None:
        """Wait for the reply and the bytes of a result; None if the process ended.

        Raises msgspec.MsgspecError for an invalid reply.
        """
        received = self._channel.receive()
        if received is None:
            return None
        return self._replies.decode(received[0]), memoryview(bytes(received[1]))


def _as_traceback(dump: str) -> str:
    """Reverse the frames of a faulthandler dump, as Python prints the most recent call last."""
    lines: list[str] = []
    frames: list[str] = []
    for line in dump.splitlines():
        if line.startswith("  File "):
            frames.insert(0, line)
        elif not line.startswith("Extension modules: "):
            lines += [*frames, line.replace("call first)", "call last)")]
            frames = []
    return "\n".join([*lines, *frames]).strip()


def _open_memory(opened: ExitStack) -> int:
    descriptor = open_memory()
    opened.callback(os.close, descriptor)
    return descriptor


def _start(
    code: str, endpoint: int, descriptors: tuple[int, ...], memory_mb: int
) -> subprocess.Popen[bytes]:
    # The child gets the parent's sys.path: `-m` and scripts put different folders first.
    code = f"import sys; sys.path[:] = {child_path()!r}; {code}"
    numbers = (endpoint, *descriptors, os.getpid(), memory_mb)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        stdout=2,  # operators print to stderr: stdout belongs to the program's own output
        pass_fds=(endpoint, *descriptors),
        process_group=0,  # the parent handles Ctrl-C of the terminal
        env=ONE_BLAS_THREAD | os.environ,
    )
