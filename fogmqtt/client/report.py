"""The figures of a job, as a program gets them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, fields

from fogmqtt.client import tables
from fogmqtt.gateway.jobs.report import Report

_HEAD = ("device", "tiles", "pixels", "share")


@dataclass(slots=True, repr=False)
class JobReport(Report):
    """The figures of a job. `print` shows them as text, and a notebook as a table."""

    @classmethod
    def of(cls, report: Report) -> JobReport:
        """Return a copy of a report."""
        return cls(**{one.name: copy(getattr(report, one.name)) for one in fields(Report)})

    def __repr__(self) -> str:
        parts = (self._sentence(), tables.as_text(_HEAD, self._rows()), *self._remarks())
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        return tables.as_html(self._sentence(), _HEAD, self._rows(), tuple(self._remarks()))

    def _sentence(self) -> str:
        return (
            f"{self.name}: {self.pipeline}: {self.done} of {self.tiles} tiles, "
            f"{self.pixels / 1e6:.2f} MP in {self.seconds:.2f} s"
        )

    def _rows(self) -> list[tuple[str | int, ...]]:
        pixels = sum(share.pixels for share in self.devices.values()) or 1
        return [
            (device, share.tiles, share.pixels, f"{100 * share.pixels / pixels:.0f} %")
            for device, share in sorted(self.devices.items())
        ]

    def _remarks(self) -> Iterator[str]:
        counts = {
            "repeated": self.retries,
            "copied": self.hedges,
            "checked by a second device": self.checked,
        }
        yield from (f"tiles {what}: {count}" for what, count in counts.items() if count)
        if self.differ is not None:
            yield f"{self.differ} values differ from one machine"
        yield from filter(None, (self.sentence, *self.notes))
