"""Decides which tiles run in a thread of the agent, and not in a worker process.

A tile for a process is copied twice more and wakes two programs more, which costs more than a
cheap operator itself. OpenCV and numpy release the interpreter while they compute, so such an
operator can run in a thread. But a thread can neither be ended nor limited in memory, and a crash
ends the agent. So a tile runs in a thread only if all of this holds:

- its operators are in `TRUSTED`, and this machine's conformance run checked their abilities;
- its pixels are not encoded, and their number suits a worker's memory;
- it should take less than `MAX_S`: by the speed that the conformance run measured, or by that of
  the last tile of its kind.

A kind of tiles that took longer than `MAX_S`, did not return, or raised an unexpected exception,
runs in processes from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from fogmqtt.errors import FogError
from fogmqtt.wire.messages import TileTask
from fogmqtt.workers.process import load_operators

if TYPE_CHECKING:
    from fogmqtt.operators.api.base import Operator

#: Built-in operators that release the interpreter, take a fraction of MAX_S for a megapixel, and
#: need less than MEMORY_FACTOR times the bytes of a tile, all of it measured
#: (docs/decisions/045-trusted-operators.md).
TRUSTED: Final = frozenset(
    (
        "adaptive",
        "adjust",
        "autocanny",
        "autolevels",
        "bilateral",
        "blackhat",
        "blur",
        "canny",
        "channel",
        "clahe",
        "close",
        "dilate",
        "equalize",
        "erode",
        "gamma",
        "gaussian",
        "gradient",
        "gray",
        "histogram",
        "hsv",
        "invert",
        "kernel",
        "lab",
        "laplacian",
        "median",
        "normalize",
        "open",
        "otsu",
        "prewitt",
        "scharr",
        "sharpen",
        "sobel",
        "stats",
        "threshold",
        "to8bit",
        "tofloat",
        "tophat",
        "triangle",
        "unsharp",
        "whitebalance",
    )
)
#: Tiled built-in operators that never run in a thread. Memory lives in the process of a worker.
UNTRUSTED: Final = frozenset(
    (
        "average",
        "background",
        "codes",
        "components",
        "denoise",
        "diff",
        "dnn",
        "median_of",
        "mog2",
    )
)

#: Seconds of processor time. A tile in a thread cannot be ended, so none may take longer.
MAX_S: Final = 0.25
#: The maximum of a tile in a thread, bytes.
MAX_BYTES: Final = 4 << 20
#: A tile of this fraction of a worker's memory leaves enough for the operators.
MEMORY_FACTOR: Final = 32
#: Smaller tiles say little about the speed of larger ones, bytes.
MIN_MEASURED_BYTES: Final = 1 << 16
#: The number of kinds whose speed is kept. Tiles of any further kind run in processes.
_MAX_KINDS: Final = 1000


class TileKind(NamedTuple):
    """What tiles that take the same time for each byte have in common."""

    operators: tuple[str, ...]
    halos: tuple[int, ...]
    dtype: str
    channels: int


class TrustedTiles:
    """The rule for the tiles of one pool. It allows nothing before `learn` is called.

    `memory_mb` is the memory limit of a worker; 0 means no limit. Any thread may call the methods.
    """

    def __init__(self, memory_mb: int = 0) -> None:
        limit = (memory_mb << 20) // MEMORY_FACTOR
        self._max_bytes = min(limit, MAX_BYTES) if memory_mb else MAX_BYTES
        self._abilities: Collection[str] = ()
        self._rates: Mapping[str, float] = {}
        #: Seconds for each byte of a tile, as the last tile of the kind took.
        self._measured: dict[TileKind, float] = {}
        self._refuted: set[TileKind] = set()
        #: OpenCV and the operators are loaded in this program.
        self.is_loaded = False

    def load(self) -> None:
        """Load OpenCV and the operators. Raises ImportError and MemoryError."""
        load_operators()
        self.is_loaded = True

    def learn(self, abilities: Collection[str], rates: Mapping[str, float]) -> None:
        """Trust the abilities that the conformance run checked.

        `rates` are nanoseconds for each 8-bit pixel, by operator.
        """
        self._abilities, self._rates = abilities, rates

    def allow(self, task: TileTask) -> TileKind | None:
        """Return the kind of a tile that may run in a thread, and None for all others.

        Loads OpenCV unless the names of the operators or the size of the tile forbid it.
        """
        if not self._is_candidate(task):
            return None
        try:
            self.load()
            operators = _build(task)
            needed = _abilities(operators, task)
        except (FogError, ImportError, MemoryError):
            return None  # a process fails with the reason
        if not all(ability in self._abilities for ability in needed):
            return None
        kind = _kind(operators, task)
        return kind if self._is_quick(kind, operators, task.pixels.nbytes) else None

    def ran(self, kind: TileKind, nbytes: int, cpu_s: float, *, is_sound: bool = True) -> None:
        """Record that a tile took `cpu_s` seconds of processor time in a thread.

        `is_sound` is False if its operators raised an unexpected exception.
        """
        if nbytes >= MIN_MEASURED_BYTES:
            self._measured[kind] = cpu_s / nbytes
        if cpu_s > MAX_S or not is_sound:
            self.refute(kind)

    def refute(self, kind: TileKind) -> None:
        """Trust no tile of this kind any more."""
        self._refuted.add(kind)

    def _is_candidate(self, task: TileTask) -> bool:
        return (
            task.memory is None  # it is in the process of a worker
            and all(call.name in TRUSTED and call.name in self._rates for call in task.stage)
            and task.codec == "raw"
            and task.pixels.nbytes <= self._max_bytes
        )

    def _is_quick(self, kind: TileKind, operators: Sequence[Operator], nbytes: int) -> bool:
        if kind in self._refuted:
            return False
        measured = self._measured.get(kind)
        if measured is None:
            if len(self._measured) >= _MAX_KINDS:
                return False
            measured = sum(self._rates[one.name] * _work_ratio(one) for one in operators) / 1e9
        return measured * nbytes < MAX_S


def _build(task: TileTask) -> list[Operator]:
    from fogmqtt.operators.api import registry

    return [registry.build(call.name, call.params) for call in task.stage]


def _abilities(operators: Sequence[Operator], task: TileTask) -> frozenset[str]:
    from fogmqtt.images.spec import Spec
    from fogmqtt.operators.api import pipeline

    return pipeline.required_abilities(operators, Spec(*task.shape, task.dtype))


def _kind(operators: Sequence[Operator], task: TileTask) -> TileKind:
    names, halos = zip(*((one.name, one.halo) for one in operators), strict=True)
    return TileKind(names, halos, task.dtype, task.shape[2])


def _work_ratio(operator: Operator) -> float:
    """Return how many times more pixels the operator looks at than when its rate was measured."""
    from fogmqtt.operators.api import registry

    try:
        measured = registry.build(operator.name, {})
    except (TypeError, FogError):  # it has required parameters
        measured = registry.build(operator.name, operator.samples[0])
    return max(1.0, ((2 * operator.halo + 1) / (2 * measured.halo + 1)) ** 2)
