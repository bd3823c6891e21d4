"""The worker process: takes a tile, does it, answers; until its pool is gone.

Whatever an operator does ends here: what it raises becomes an answer, what it prints goes to
stderr, and what it breaks breaks this process, which the pool replaces.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

import msgspec

from fogmqtt.errors import FogError
from fogmqtt.process_tuning import tune
from fogmqtt.wire.messages import TileTask
from fogmqtt.workers.channel import Memory, WorkerChannel
from fogmqtt.workers.memory_limit import MemoryLimit

#: Characters; the wire takes 20 000 of each.
LONGEST_REASON = 2_000
LONGEST_TRACEBACK = 20_000

#: The pool sends it to a worker that hangs: the traceback is written, and the process ends.
DUMP = signal.SIGUSR1

#: Linux's name for: kill me when the thread that started me is gone.
_PR_SET_PDEATHSIG = 1


class Done(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The result's bytes are beside this header."""

    shape: tuple[int, int, int]
    dtype: str
    codec: str
    compute_s: float
    #: This process should be replaced.
    worn: bool


class Broken(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """It did not work."""

    reason: str
    traceback: str
    worn: bool


Reply = Done | Broken


def main() -> None:
    """Run it; the arguments are what `Child` gives."""
    channel, memory_mb = begin()
    import fogmqtt.workers.compute  # noqa: F401  # before the allowance is measured

    _serve(channel, MemoryLimit(memory_mb))


def begin() -> tuple[WorkerChannel, int]:
    """Become a process of ours; returns the channel and the MB that may be taken."""
    end, inward, outward, faults, parent, memory_mb = map(int, sys.argv[1:])
    _stand_alone(faults, parent, (end, inward, outward, faults))
    tune()
    end_of_ours = socket.socket(fileno=end)
    return WorkerChannel(end_of_ours, inward=Memory(inward), outward=Memory(outward)), memory_mb


def _serve(channel: WorkerChannel, allowance: MemoryLimit) -> None:
    tasks = msgspec.msgpack.Decoder(TileTask)
    replies = msgspec.msgpack.Encoder()
    while (asked := channel.receive()) is not None:
        task = msgspec.structs.replace(tasks.decode(asked[0]), pixels=asked[1])
        reply, data = attempt(task, allowance)
        channel.send(replies.encode(reply), data)


def attempt(task: TileTask, allowance: MemoryLimit) -> tuple[Reply, memoryview | bytes]:
    """The answer and a result's bytes; never raises."""
    from fogmqtt.workers.compute import compute

    began = time.monotonic()
    try:
        made = compute(task)
    except BaseException as problem:  # noqa: BLE001  # an operator may raise anything
        allowance.lift()
        return broken(problem), b""
    took_s = time.monotonic() - began
    done = Done(made.shape, made.dtype, made.codec, took_s, allowance.used_up())
    return done, made.data


def broken(problem: BaseException) -> Broken:
    """What there is to say about it, bounded."""
    expected = isinstance(problem, FogError)
    # Not str(problem) of what is not ours: it may fail itself.
    reason = str(problem) if expected else "".join(traceback.format_exception_only(problem))
    trace = "".join(traceback.format_exception(problem))
    # Nobody knows what an operator that raised left behind, and the next tile is another's.
    return Broken(
        _clean(reason.strip())[:LONGEST_REASON],
        _clean(trace)[-LONGEST_TRACEBACK:],
        worn=not expected,
    )


def _clean(text: str) -> str:
    """Text that can be encoded: what an operator says may hold half a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def _stand_alone(faults: int, parent: int, descriptors: tuple[int, ...]) -> None:
    """Die with the parent and not before; tell `faults` of what no exception tells."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a service manager sends these to all of us
        signal.signal(number, _ignore)
    faulthandler.enable(faults)
    faulthandler.register(DUMP, file=faults, all_threads=True, chain=True)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # Where memory runs out, the kernel ends this process and not the one that it works for.
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")
    if os.getppid() != parent:
        os._exit(0)  # it died before we asked


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler, unlike SIG_IGN, is not left to what an operator starts."""
