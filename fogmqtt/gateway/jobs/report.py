"""The figures of one job, as `--report` writes them."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field

from fogmqtt.core.geometry import Rect
from fogmqtt.gateway.broker_health import REMEDY
from fogmqtt.log import one_line

#: The number of failed attempts that are kept with their tracebacks, the newest.
_FAILURES = 20
#: The number of notes that are kept.
_NOTES = 20
#: The number of lines of a traceback that are shown, the last.
_LINES = 15


@dataclass(slots=True)
class DeviceShare:
    """What one device did for a job."""

    tiles: int = 0
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class TileFailure:
    """One failed attempt, with the device's reason and traceback."""

    tile: int
    attempt: int
    device: str
    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ReportSnapshot:
    """The progress of a report before a stage."""

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
    #: The stages of all pages, and those that are done; `tiles` and `done` count their tiles.
    stages: int = 0
    stages_done: int = 0
    #: The tiles of the stages that are done.
    tiles_before: int = 0
    retries: int = 0
    hedges: int = 0
    duplicates: int = 0
    #: Tiles whose result a second device or the gateway confirmed.
    checked: int = 0
    bytes_out: int = 0
    bytes_back: int = 0
    #: Messages of any client that the broker dropped meanwhile; it publishes them every 10 s.
    dropped: int = 0
    #: Pixels or facts that differ from one machine's; None if the job was not verified.
    differ: int | None = None
    #: Facts that were compared; None if pixels were compared.
    facts: int | None = None
    #: Seconds from the plan of a stage until it is done, for all tiled stages together.
    makespan: float = 0.0
    #: Seconds of these stages on this gateway alone; None if they are not known.
    alone_s: float | None = 0.0
    #: Whether all these seconds were measured; otherwise some are predicted.
    alone_measured: bool = True
    #: Why the fleet could not help; empty if it helped.
    sentence: str = ""
    #: What users were told about the job, the newest.
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=_NOTES))
    #: Whether the job's status is published.
    listed: bool = True
    failures: deque[TileFailure] = field(default_factory=lambda: deque(maxlen=_FAILURES))
    #: The trace that the request belongs to, as W3C Trace Context writes it; empty for none.
    traceparent: str = ""
    #: The tiles of the last stage: (device, core's top, left, height, width).
    mosaic: list[tuple[str, int, int, int, int]] = field(default_factory=list)

    @property
    def fraction(self) -> float:
        """The part of the work that is done, from 0 to 1. Each stage counts alike."""
        tiles = self.tiles - self.tiles_before
        present = (self.done - self.tiles_before) / tiles if tiles > 0 else 0.0
        return (self.stages_done + present) / self.stages if self.stages else 0.0

    def end_stage(self) -> None:
        """Count a stage as done."""
        self.stages_done += 1
        self.tiles_before = self.tiles

    def as_json(self) -> dict[str, object]:
        """The report as `--report` writes it."""
        return {
            "job": self.job,
            "name": self.name,
            "pipeline": self.pipeline,
            **({"traceparent": self.traceparent} if self.traceparent else {}),
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
        """Count a tile for the device that did it."""
        share = self.devices.setdefault(device, DeviceShare())
        share.tiles += 1
        share.pixels += core.pixels
        self.mosaic.append(_piece(device, core))

    def uncredit(self, device: str, core: Rect) -> None:
        """Undo `credit`."""
        share = self.devices[device]
        share.tiles -= 1
        share.pixels -= core.pixels
        if not share.tiles:
            del self.devices[device]
        self.mosaic.remove(_piece(device, core))

    def add_alone(self, seconds: float | None, *, measured: bool) -> None:
        """Add the seconds of a stage on this gateway alone; None if they are not known."""
        known = self.alone_s is not None and seconds is not None
        self.alone_s = (self.alone_s or 0.0) + (seconds or 0.0) if known else None
        self.alone_measured = self.alone_measured and measured

    def add_reason(self, sentence: str) -> None:
        """Add a reason why the fleet could not help; one of a kind, since pages repeat it."""
        if self.sentence and sentence.partition(":")[0] in self.sentence:
            return
        self.sentence = "; ".join(filter(None, (self.sentence, sentence)))

    def snapshot(self) -> ReportSnapshot:
        """Return the progress now, for `restore`."""
        shares = {device: (share.tiles, share.pixels) for device, share in self.devices.items()}
        return ReportSnapshot(self.tiles, self.done, shares)

    def restore(self, snapshot: ReportSnapshot) -> None:
        """Discard the progress since the snapshot."""
        self.tiles, self.done = snapshot.tiles, snapshot.done
        self.devices = {device: DeviceShare(*share) for device, share in snapshot.devices.items()}
        self.mosaic.clear()

    def last_traceback(self) -> str:
        """Return the newest failure's traceback, safe for a terminal; empty if there is none."""
        if not self.failures:
            return ""
        failure = self.failures[-1]
        lines = failure.traceback.rstrip().splitlines()[-_LINES:]
        where = f"{failure.device} at tile {failure.tile}, attempt {failure.attempt}:"
        return "\n  ".join([where, *map(one_line, lines)]) if lines else ""


def _piece(device: str, core: Rect) -> tuple[str, int, int, int, int]:
    return device, core.top, core.left, core.height, core.width


def format_differences(report: Report, where: Rect | None = None) -> str:
    """Return the result of a comparison with one machine as a sentence."""
    if report.facts is not None:
        return f"{report.differ} of {report.facts} facts differ from one machine"
    line = f"{report.differ} of {report.pixels} pixels differ from one machine"
    if where is None:
        return line
    return f"{line}, within {where.width}x{where.height} at row {where.top}, column {where.left}"
