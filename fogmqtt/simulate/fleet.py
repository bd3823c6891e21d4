"""A fleet to be simulated: the format of its file, and the devices that follow from it."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from fogmqtt.config.text import read_yaml
from fogmqtt.errors import ConfigError
from fogmqtt.operators.api import registry
from fogmqtt.simulate.fleet_yaml import YamlSection, nearest, read
from fogmqtt.wire.topics import check_id

Over0 = Annotated[float, Meta(gt=0)]
From0 = Annotated[float, Meta(ge=0)]
Chance = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
#: No tile is larger.
UNLIMITED = 2**40


@dataclass(frozen=True, slots=True)
class Outage:
    """An interval in seconds; without `for_s` it never ends."""

    at_s: From0
    for_s: Over0 = math.inf


@dataclass(frozen=True, slots=True)
class Step:
    """From `at_s` on the device works at `factor` times its speed."""

    at_s: From0
    factor: Over0


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """The link between a device and the gateway; both directions are alike and independent.

    `jitter_ms` is the mean of a random addition to the latency. `loss`, `duplicates` and
    `reordering` are the probabilities that a message never arrives, arrives twice, is overtaken.
    """

    rate_mbps: Over0 = 1000.0
    latency_ms: From0 = 1.0
    jitter_ms: From0 = 0.0
    loss: Chance = 0.0
    duplicates: Chance = 0.0
    reordering: Chance = 0.0


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of the device itself.

    It crashes at every one of `crashes`, and at random every `crash_every_s` on average; then it is
    back after `rejoin_after_s` on average. Its last will is published after `will_after_s`. A tile
    takes `straggler_factor` times as long with the probability `stragglers`.
    """

    crashes: tuple[Outage, ...] = ()
    crash_every_s: Over0 = math.inf
    rejoin_after_s: Over0 = 5.0
    will_after_s: From0 = 0.1
    stragglers: Chance = 0.0
    straggler_factor: Annotated[float, Meta(ge=1)] = 10.0


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One modelled device, or `count` of them.

    `speed` is the number of pixels that one worker handles in a second, halo included, for each
    stage of the pipeline; a file may give a range `[low, high]`, from which each device draws its
    own. `drift` changes it at given times, `wander` slowly at random: it is the standard deviation
    of the logarithm of the speed after a second. `overhead_ms` is the time of a tile beside its
    pixels. Without `operators` the device knows all.
    """

    id: str
    speed: Over0
    count: Count = 1
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1
    overhead_ms: From0 = 1.0
    drift: tuple[Step, ...] = ()
    wander: Annotated[float, Meta(ge=0, le=1)] = 0.0
    link: LinkSpec = LinkSpec()
    faults: Faults = Faults()
    operators: tuple[str, ...] = ()
    max_tile_pixels: Annotated[int, Meta(ge=1)] = UNLIMITED
    joins_at_s: From0 = 0.0

    def knows(self, operators: frozenset[str]) -> bool:
        return not self.operators or operators <= frozenset(self.operators)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """Devices with ids of their own (`count` is 1), and the broker's outages."""

    devices: tuple[DeviceSpec, ...]
    outages: tuple[Outage, ...] = ()
    #: The name of the fleet in messages.
    origin: str = "fleet"


def load_fleet(path: Path, seed: int = 0) -> FleetSpec:
    """The fleet that a YAML file describes; `seed` decides what the file leaves to chance.

    Raises ConfigError, which names the file, the key and what is expected.
    """
    top = YamlSection(str(path), read_yaml(path))
    top.only("devices", "defaults", "outages")
    entries = top.get("devices")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: devices: expected a list of at least one device")
    defaults = top.get("defaults", {})
    _check_defaults(YamlSection(str(path), defaults, "defaults"))
    devices: list[DeviceSpec] = []
    for index, entry in enumerate(entries):
        section = YamlSection(str(path), _filled(entry, defaults), f"devices[{index}]")
        devices += _devices(section, random.Random(f"{seed}/{index}"))  # noqa: S311
    _check_ids(str(path), devices)
    outages = read(YamlSection(str(path), {"outages": top.get("outages", [])}), _Outages).outages
    return FleetSpec(tuple(devices), outages, str(path))


@dataclass(frozen=True, slots=True)
class Addition:
    """Devices to add: `like` is a speed in pixels per second, or the id of a known device."""

    count: int
    like: str

    def __str__(self) -> str:
        return f"{self.count}x{self.like}"


def extended(fleet: FleetSpec, additions: Sequence[Addition]) -> FleetSpec:
    """The fleet with more devices. Raises ConfigError if `like` is neither a speed nor a device."""
    known = {device.id: device for device in fleet.devices}
    added: list[DeviceSpec] = []
    for addition in additions:
        model = known.get(addition.like) or _bare(addition, known)
        added += [replace(model, id="") for _ in range(addition.count)]
    free = (name for number in itertools.count(1) if (name := f"added-{number}") not in known)
    named = (replace(device, id=name) for device, name in zip(added, free, strict=False))
    return replace(fleet, devices=(*fleet.devices, *named))


def _bare(addition: Addition, known: Iterable[str]) -> DeviceSpec:
    try:
        speed = float(addition.like)
    except ValueError:
        speed = 0.0
    if not 0 < speed < math.inf:
        raise ConfigError(
            f"--add {addition}: {addition.like!r} is neither pixels per second nor a device of the "
            f"fleet; {nearest(addition.like, known)}"
        )
    return DeviceSpec("added", speed)


@dataclass(frozen=True, slots=True)
class _Outages:
    outages: tuple[Outage, ...] = ()


def _check_defaults(section: YamlSection) -> None:
    """Report an invalid default once, where it is written."""
    for name in ("id", "count", "speed"):
        if name in section.values:
            raise ConfigError(f"{section.at(name)}: each device has its own; leave it out here")
    read(
        YamlSection(section.file, {"id": "any", "speed": 1.0, **section.values}, section.key),
        DeviceSpec,
    )


def _filled(entry: Any, defaults: dict[str, Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    filled = {**defaults, **entry}
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(entry.get(name), dict):
            filled[name] = {**default, **entry[name]}
    return filled


@dataclass(frozen=True, slots=True)
class _Range:
    """The allowed values of `speed` beside a number."""

    speed: tuple[Over0, ...]


def _devices(section: YamlSection, chance: random.Random) -> list[DeviceSpec]:
    low, high = _speeds(section)
    section.values["speed"] = low
    entry = read(section, DeviceSpec)
    _check_operators(section, entry.operators)
    made = []
    for number in range(1, entry.count + 1):
        name = entry.id if entry.count == 1 else f"{entry.id}-{number}"
        check_id(name, section.at("id"))
        speed = entry.speed
        if low != high:
            speed = math.exp(chance.uniform(math.log(low), math.log(high)))
        made.append(replace(entry, id=name, speed=speed, count=1))
    return made


def _speeds(section: YamlSection) -> tuple[Any, Any]:
    """The ends of a range; a single speed is both ends."""
    speed = section.values.get("speed")
    if not isinstance(speed, list):
        return speed, speed
    ends = read(YamlSection(section.file, {"speed": speed}, section.key), _Range).speed
    if len(ends) != 2 or ends[0] > ends[1]:
        shown = ", ".join(f"{end:g}" for end in ends)
        raise ConfigError(f"{section.at('speed')}: expected a number or [low, high], got [{shown}]")
    return ends


def _check_operators(section: YamlSection, operators: tuple[str, ...]) -> None:
    known = registry.names()
    for name in operators:
        if name not in known:
            raise ConfigError(
                f"{section.at('operators')}: no operator {name!r}; {nearest(name, known)}"
            )


def _check_ids(file: str, devices: list[DeviceSpec]) -> None:
    for name, count in Counter(device.id for device in devices).items():
        if count > 1:
            raise ConfigError(f"{file}: devices: {name!r} is there {count} times")
