"""The main program of a worker process: runs one task after the other until its pool is gone.

Whatever an operator does affects this process only. An exception becomes a reply, output goes to
stderr, and the pool replaces a process that crashed.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import msgspec

from fogmqtt.errors import FogError, WrongMemory
from fogmqtt.parent import end_with_parent
from fogmqtt.process_tuning import tune
from fogmqtt.wire.messages import TileTask
from fogmqtt.workers.channel import SharedMemory, WorkerChannel
from fogmqtt.workers.memory_limit import MemoryLimit
from fogmqtt.workers.work import TileOutput

#: The length limits of a failure, in characters. The wire accepts 20 000 of each.
MAX_REASON_CHARS = 2_000
MAX_TRACEBACK_CHARS = 20_000

if TYPE_CHECKING:
    from fogmqtt.workers.memories import TileMemories

#: Seconds between two looks for memories that no task comes for any more.
_EXPIRE_S: Final = 10.0

#: The signal to a hanging worker: the worker writes its traceback and ends.
DUMP_SIGNAL = signal.SIGUSR1


class WorkerDone(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The header of a result. The channel carries the result's bytes beside it."""

    shape: tuple[int, int, int]
    dtype: str
    codec: str
    #: Seconds of all the work, and of its first and last part.
    compute_s: float
    decode_s: float
    encode_s: float
    #: The pool should replace this process.
    needs_replacement: bool


class WorkerFailed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The task failed."""

    reason: str
    traceback: str
    #: The pool should replace this process.
    needs_replacement: bool
    #: The version of the tile's memory, if the task needed another one; -1 for none.
    have: int | None = None


Reply = WorkerDone | WorkerFailed


def main() -> None:
    """Run the worker. The arguments come from `WorkerProcess`."""
    channel, memory_mb = connect_to_parent()
    with suppress(ImportError):  # each task fails with the reason
        load_operators()
    _serve(channel, MemoryLimit(memory_mb))


def connect_to_parent() -> tuple[WorkerChannel, int]:
    """Set up this process as a child; returns the channel and the memory limit in MB."""
    endpoint, incoming, outgoing, dump, parent, memory_mb = map(int, sys.argv[1:])
    _set_up_process(dump, parent, (endpoint, incoming, outgoing, dump))
    tune()
    channel = WorkerChannel(
        socket.socket(fileno=endpoint),
        incoming=SharedMemory(incoming),
        outgoing=SharedMemory(outgoing),
    )
    return channel, memory_mb


def load_operators() -> None:
    """Load OpenCV and the operator modules. A memory limit set later does not count them."""
    import fogmqtt.images.codec
    import fogmqtt.operators.api.pipeline
    import fogmqtt.operators.api.results  # noqa: F401
    from fogmqtt.images.cv import one_thread

    one_thread()


def _serve(channel: WorkerChannel, limit: MemoryLimit) -> None:
    tasks = msgspec.msgpack.Decoder(TileTask)
    replies = msgspec.msgpack.Encoder()
    memories: TileMemories | None = None
    while (received := _next(channel, memories)) is not None:
        header, pixels = received
        task = msgspec.structs.replace(tasks.decode(header), pixels=pixels)
        if memories is None and task.memory is not None:
            from fogmqtt.workers.memories import TileMemories  # most workers need none

            memories = TileMemories(limit.memory_mb)
        reply, data = run_task(task, limit, memories)
        channel.send(replies.encode(reply), data)


def _next(channel: WorkerChannel, memories: TileMemories | None) -> tuple[bytes, memoryview] | None:
    """Wait for a task; forget memories that no task comes for any more."""
    while memories is not None and memories.expire(time.monotonic()):
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        if poll.poll(_EXPIRE_S * 1000):
            break
    return channel.receive()


def run_task(
    task: TileTask, limit: MemoryLimit, memories: TileMemories | None = None
) -> tuple[Reply, memoryview | bytes]:
    """Return the reply and the bytes of a result. Never raises."""
    started_at = time.monotonic()
    try:
        output = compute(task, memories)
    except BaseException as problem:  # noqa: BLE001  # an operator may raise anything
        limit.reserve = None  # needs no memory
        with limit.lifted():
            return describe_failure(problem), b""
    compute_s = time.monotonic() - started_at
    reply = WorkerDone(
        output.shape,
        output.dtype,
        output.codec,
        compute_s,
        output.decode_s,
        output.encode_s,
        limit.is_nearly_used_up(),
    )
    return reply, output.data


def compute(task: TileTask, memories: TileMemories | None = None) -> TileOutput:
    """Decode the pixels, run the operators for the core, and encode the result.

    Raises FogError for an impossible task, and any exception of an operator.
    """
    if memories is not None and task.memory is not None:
        return memories.compute(task, task.memory)
    # Imported here: the programs that start workers import this module and stay free of OpenCV.
    from fogmqtt.operators.api import registry
    from fogmqtt.workers.stage import run_stage

    return run_stage(tuple(registry.build(call.name, call.params) for call in task.stage), task)


def describe_failure(problem: BaseException) -> WorkerFailed:
    """Return the reason and the traceback of an exception, both of bounded length."""
    is_expected = isinstance(problem, FogError)
    # str() of a foreign exception may raise itself.
    reason = str(problem) if is_expected else "".join(traceback.format_exception_only(problem))
    trace = "".join(traceback.format_exception(problem))
    # The state that an unexpected exception leaves behind is unknown, and the next tile may belong
    # to another job.
    return WorkerFailed(
        _encodable(reason.strip())[:MAX_REASON_CHARS],
        _encodable(trace)[-MAX_TRACEBACK_CHARS:],
        needs_replacement=not is_expected,
        have=problem.have if isinstance(problem, WrongMemory) else None,
    )


def _encodable(text: str) -> str:
    """Replace what UTF-8 cannot encode: the text of an exception may hold a lone surrogate."""
    return text.encode("utf-8", "replace").decode()


def _set_up_process(dump: int, parent: int, descriptors: tuple[int, ...]) -> None:
    """End with the parent and not before it; write tracebacks of crashes to the file `dump`."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a service manager sends these to all of us
        signal.signal(number, _ignore)
    faulthandler.enable(dump)
    faulthandler.register(DUMP_SIGNAL, file=dump, all_threads=True, chain=True)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    end_with_parent(parent)
    with suppress(OSError):  # only Linux has this file, and not in every container
        # If memory runs out, the kernel ends this process before its parent.
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")


def _ignore(number: int, frame: FrameType | None) -> None:
    """Ignore a signal. Programs that an operator starts inherit SIG_IGN, but not a handler."""
