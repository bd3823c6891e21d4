"""The devices of a fog, as a program sees them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass, field

from fogmqtt.client import tables
from fogmqtt.gateway.devices.registry import DeviceView
from fogmqtt.wire.topics import LOCAL
from fogmqtt.workers.resources import cores

_HEAD = ("device", "state", "workers", "tiles done", "host", "°C", "load")


@dataclass(frozen=True, slots=True)
class Device:
    """A device that has announced itself, or the cores of this machine.

    Attributes
    ----------
    id : its name; `local` is this machine
    online : whether it takes part now
    workers : tiles that it does at once
    host : the name of its machine
    tiles_done, tiles_held : tiles since its start, and those that it has now
    temperature_c, load : of its processor, and of the last minute; None if it does not tell
    versions : of what decides how it rounds, such as OpenCV
    differs : what it computes differently from this machine, so it gets no such tiles; with reasons
    problems : what its operators lack, one sentence each
    """

    id: str
    online: bool
    workers: int
    host: str
    tiles_done: int = 0
    tiles_held: int = 0
    temperature_c: float | None = None
    load: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, view: DeviceView) -> Device:
        """Return what a program is told of a device."""
        info = view.info
        return cls(
            view.id,
            view.online,
            info.workers,
            info.host,
            info.tiles_done,
            info.tiles_held,
            info.temperature_c,
            info.load,
            dict(info.versions),
            dict(view.differs),
            tuple(info.problems),
        )

    @classmethod
    def this_machine(cls) -> Device:
        """Return the cores of this machine."""
        return cls(LOCAL, True, cores(), platform.node())


class Devices(tuple[Device, ...]):
    """The devices in the order of their ids. `print` shows a table, and so does a notebook."""

    __slots__ = ()

    @property
    def online(self) -> tuple[Device, ...]:
        """The devices that take part now."""
        return tuple(device for device in self if device.online)

    def __repr__(self) -> str:
        return "\n".join((tables.as_text(_HEAD, self._rows()), *self._remarks()))

    def _repr_html_(self) -> str:
        return tables.as_html(self._caption(), _HEAD, self._rows(), tuple(self._remarks()))

    def _caption(self) -> str:
        online = self.online
        return f"{len(online)} online, {sum(device.workers for device in online)} worker(s)"

    def _rows(self) -> list[tuple[str | int, ...]]:
        return [
            (
                device.id,
                "online" if device.online else "offline",
                device.workers,
                device.tiles_done,
                device.host,
                _number(device.temperature_c),
                _number(device.load),
            )
            for device in self
        ]

    def _remarks(self) -> Iterator[str]:
        for device in self:
            for ability, reason in device.differs.items():
                yield f"{device.id} gets no tiles for {ability}: it {reason}"
            yield from (f"{device.id}: {problem}" for problem in device.problems)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
