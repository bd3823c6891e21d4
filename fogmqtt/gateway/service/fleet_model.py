"""Models the devices that are online, for a simulation, from what they announce of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fogmqtt.errors import UsageError
from fogmqtt.gateway.devices.compatibility import required
from fogmqtt.gateway.devices.registry import DeviceView
from fogmqtt.log import one_line
from fogmqtt.operators.api.pipeline import Stage
from fogmqtt.simulate.fleet import UNLIMITED, DeviceSpec, FleetSpec, LinkSpec
from fogmqtt.wire.messages import DeviceInfo

_NS = 1e9
_ADVICE = "start one: fog-device --id eya; or describe a fleet: --fleet FILE"


@dataclass(frozen=True, slots=True)
class ModelledFleet:
    """A fleet, and sentences for users about how it was modelled."""

    fleet: FleetSpec
    remarks: tuple[str, ...]


def model_fleet(
    views: Iterable[DeviceView], stages: Sequence[Stage], *, exact: bool
) -> ModelledFleet:
    """Model the devices that are online and can do all stages, at their announced speeds.

    Raises UsageError if there is no such device.
    """
    devices, remarks = [], []
    for view in views:
        if not view.online:
            continue
        model = _model(view, stages, exact=exact)
        if isinstance(model, DeviceSpec):
            devices.append(model)
            remarks.append(f"{view.id}: {model.workers} worker(s) of {model.speed / 1e6:.3g} MP/s")
        else:
            remarks.append(f"{view.id} is left out: {one_line(model)}")
    if not devices:
        raise UsageError("\n".join(["no device to model is online", *remarks, _ADVICE]))
    link = LinkSpec()
    remarks.append(
        "each device measured its own speed with one worker; links are assumed: "
        f"{link.rate_mbps:g} Mbit/s and {link.latency_ms:g} ms each way"
    )
    return ModelledFleet(
        FleetSpec(tuple(devices), origin="the fleet that is online"), tuple(remarks)
    )


def _model(view: DeviceView, stages: Sequence[Stage], *, exact: bool) -> DeviceSpec | str:
    """Return the model of a device, or the reason why there is none."""
    info = view.info
    needs = (required(stage, exact=exact) for stage in stages)
    missing = sorted(frozenset().union(*needs) - view.abilities)
    if missing:
        return f"{missing[0]} {view.lacks.get(missing[0], 'is not installed')}"
    unknown = sorted(set(_names(stages)) - info.rates.keys())
    if unknown:
        return f"it does not announce its speed for {', '.join(unknown)}"
    max_pixels = info.max_tile_pixels or UNLIMITED
    return DeviceSpec(
        view.id, _speed(info, stages), workers=info.workers, max_tile_pixels=max_pixels
    )


def _names(stages: Sequence[Stage]) -> list[str]:
    """Return the operators that devices run, with repetitions."""
    return [operator.name for stage in stages for operator in stage.operators]


def _speed(info: DeviceInfo, stages: Sequence[Stage]) -> float:
    """Return the mean speed of one worker over all stages, in pixels per second.

    With the mean, the simulated time of all stages together is right.
    """
    ns = sum(info.rates[name] for name in _names(stages))
    # The announced time of a cheap operator may be 0.
    return _NS * len(stages) / max(ns, 1e-3)
