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
from fogmqtt.tuning import tune
from fogmqtt.wire.messages import TileTask
from fogmqtt.workers.channel import Channel, Memory

#: Characters; the wire takes 20 000 of each.
LONGEST_REASON = 2_000
LONGEST_TRACEBACK = 20_000

#: The pool sends it to a worker that hangs: the traceback is written, and the process ends.
DUMP = signal.SIGUSR1

#: Linux's name for: kill me when the thread that started me is gone.
_PR_SET_PDEATHSIG = 1
#: An idle worker that keeps so much of what it may have is replaced: its next tile would pay.
_WORN = 0.75


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


class Allowance:
    """How much memory the operators may take, beyond what a worker needs to be there."""

    def __init__(self, memory_mb: int) -> None:
        self._limit = 0
        if memory_mb and sys.platform == "linux":
            self._limit = _data_bytes() + (memory_mb << 20)
            self._worn = self._limit - int((1 - _WORN) * (memory_mb << 20))
            self._set(self._limit)

    def lift(self) -> None:
        """What is to be said about a lack of memory needs some."""
        if self._limit:
            import resource

            self._set(resource.getrlimit(resource.RLIMIT_DATA)[1])

    def used_up(self) -> bool:
        """Whether too little is left for another tile."""
        return bool(self._limit) and _data_bytes() > self._worn

    @staticmethod
    def _set(limit: int) -> None:
        import resource

        # DATA: what a process has for itself. AS would count the shared tiles and all libraries.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main() -> None:
    """Run it; the arguments are what `Child` gives."""
    end, inward, outward, faults, parent, memory_mb = map(int, sys.argv[1:])
    _stand_alone(faults, parent, (end, inward, outward, faults))
    tune()
    import fogmqtt.workers.compute  # noqa: F401  # before the allowance is measured

    _serve(
        Channel(socket.socket(fileno=end), inward=Memory(inward), outward=Memory(outward)),
        Allowance(memory_mb),
    )


def _serve(channel: Channel, allowance: Allowance) -> None:
    tasks = msgspec.msgpack.Decoder(TileTask)
    replies = msgspec.msgpack.Encoder()
    while (asked := channel.receive()) is not None:
        task = msgspec.structs.replace(tasks.decode(asked[0]), pixels=asked[1])
        reply, data = attempt(task, allowance)
        channel.send(replies.encode(reply), data)


def attempt(task: TileTask, allowance: Allowance) -> tuple[Reply, memoryview | bytes]:
    """The answer and a result's bytes; never raises."""
    from fogmqtt.workers.compute import compute

    began = time.monotonic()
    try:
        made = compute(task)
    except BaseException as problem:  # noqa: BLE001  # an operator may raise anything
        allowance.lift()
        return _broken(problem), b""
    took_s = time.monotonic() - began
    done = Done(made.shape, made.dtype, made.codec, took_s, allowance.used_up())
    return done, made.data


def _broken(problem: BaseException) -> Broken:
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
    if os.getppid() != parent:
        os._exit(0)  # it died before we asked


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler, unlike SIG_IGN, is not left to what an operator starts."""


def _data_bytes() -> int:
    """What RLIMIT_DATA counts."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[5]
    return int(pages) * os.sysconf("SC_PAGESIZE")
