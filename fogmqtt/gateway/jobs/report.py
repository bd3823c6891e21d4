"""The figures of one job, as `--report` writes them."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field

from fogmqtt.core.geometry import Rect
from fogmqtt.gateway.broker_health import REMEDY
from fogmqtt.log import one_line

#: So many of a job's failed tiles are kept with their tracebacks, the newest.
_FAILURES = 20
#: And so many lines of a traceback are shown.
_LINES = 15


@dataclass(slots=True)
class DeviceShare:
    """What one device did for a job."""

    tiles: int = 0
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class TileFailure:
    """One attempt that failed, in the device's own words."""

    tile: int
    attempt: int
    device: str
    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ReportSnapshot:
    """How far a report was before a stage."""

    tiles: int
    done: int
    devices: dict[str, tuple[int, int]]


@dataclass(slots=True)
class Report:
    """The figures of one job; the JSON report is these fields."""

    job: str
    name: str
    pipeline: str
    pixels: int = 0
    seconds: float = 0.0
    tiles: int = 0
    done: int = 0
    devices: dict[str, DeviceShare] = field(default_factory=dict)
    retries: int = 0
    hedges: int = 0
    duplicates: int = 0
    #: Tiles that a second device, or the gateway, found right.
    checked: int = 0
    bytes_out: int = 0
    bytes_back: int = 0
    #: Messages that the broker dropped meanwhile, of anybody's; known to some 10 s.
    dropped: int = 0
    #: Pixels, or single facts, that differ from one machine; None unless verified.
    differ: int | None = None
    #: Single facts that were compared; None where pixels were.
    facts: int | None = None
    #: Seconds from a stage's first tile until it is merged, of all stages that devices could do.
    makespan: float = 0.0
    #: What these stages take on this gateway alone; None where nobody knows. Whether all of them
    #: were done so, or it is predicted.
    alone_s: float | None = 0.0
    alone_measured: bool = True
    #: Why the fleet could not help; empty where it could.
    sentence: str = ""
    failures: deque[TileFailure] = field(default_factory=lambda: deque(maxlen=_FAILURES))
    #: Which device did each tile: (device, core's top, left, height, width), of the last stage.
    mosaic: list[tuple[str, int, int, int, int]] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The report as `--report` writes it."""
        return {
            "job": self.job,
            "name": self.name,
            "pipeline": self.pipeline,
            "pixels": self.pixels,
            "seconds": round(self.seconds, 4),
            "makespan": round(self.makespan, 4),
            "local": {
                "seconds": None if self.alone_s is None else round(self.alone_s, 4),
                "measured": self.alone_measured,
                "sentence": self.sentence,
            },
            "tiles": self.tiles,
            "devices": {
                device: {"tiles": share.tiles, "pixels": share.pixels}
                for device, share in sorted(self.devices.items())
            },
            "retries": self.retries,
            "hedges": self.hedges,
            "duplicates": self.duplicates,
            "checked": self.checked,
            "wire_bytes": {"out": self.bytes_out, "back": self.bytes_back},
            "dropped": {"messages": self.dropped, "remedy": REMEDY if self.dropped else ""},
            "differ": self.differ,
            "failures": [asdict(failure) for failure in self.failures],
        }

    def credit(self, device: str, core: Rect) -> None:
        """The device did this tile."""
        share = self.devices.setdefault(device, DeviceShare())
        share.tiles += 1
        share.pixels += core.pixels
        self.mosaic.append(_piece(device, core))

    def uncredit(self, device: str, core: Rect) -> None:
        """What it did does not count any more."""
        share = self.devices[device]
        share.tiles -= 1
        share.pixels -= core.pixels
        if not share.tiles:
            del self.devices[device]
        self.mosaic.remove(_piece(device, core))

    def count_alone(self, seconds: float | None, *, measured: bool) -> None:
        """A stage takes so long on this gateway alone."""
        known = self.alone_s is not None and seconds is not None
        self.alone_s = (self.alone_s or 0.0) + (seconds or 0.0) if known else None
        self.alone_measured = self.alone_measured and measured

    def explain(self, sentence: str) -> None:
        """Say once more why the fleet could not help."""
        self.sentence = "; ".join(filter(None, (self.sentence, sentence)))

    def mark(self) -> ReportSnapshot:
        """What `take_back` goes back to."""
        shares = {device: (one.tiles, one.pixels) for device, one in self.devices.items()}
        return ReportSnapshot(self.tiles, self.done, shares)

    def take_back(self, mark: ReportSnapshot) -> None:
        """What was done since then does not count."""
        self.tiles, self.done = mark.tiles, mark.done
        self.devices = {device: DeviceShare(*share) for device, share in mark.devices.items()}
        self.mosaic.clear()

    def last_traceback(self) -> str:
        """The newest failure's, line by line and safe for a terminal; empty where there is none."""
        if not self.failures:
            return ""
        failure = self.failures[-1]
        lines = failure.traceback.rstrip().splitlines()[-_LINES:]
        where = f"{failure.device} at tile {failure.tile}, attempt {failure.attempt}:"
        return "\n  ".join([where, *map(one_line, lines)]) if lines else ""


def _piece(device: str, core: Rect) -> tuple[str, int, int, int, int]:
    return device, core.top, core.left, core.height, core.width


def differ_line(report: Report, where: Rect | None = None) -> str:
    """What `--verify` found, as people read it."""
    if report.facts is not None:
        return f"{report.differ} of {report.facts} facts differ from one machine"
    line = f"{report.differ} of {report.pixels} pixels differ from one machine"
    if where is None:
        return line
    return f"{line}, within {where.width}x{where.height} at row {where.top}, column {where.left}"
