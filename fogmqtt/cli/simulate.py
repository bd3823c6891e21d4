"""`fog-gateway simulate`: how long would it take, with such a fleet?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fogmqtt.cli.common import positive
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import UsageError
from fogmqtt.images.drawing import png, svg
from fogmqtt.simulate.fleet import load_fleet
from fogmqtt.simulate.gantt import Chart, gantt
from fogmqtt.simulate.outcome import DeviceFigures, Outcome, simulate
from fogmqtt.simulate.trace import trace
from fogmqtt.simulate.work import JobWork, planned_job

#: A table of more devices is nothing to read: the extremes are shown.
_SHOWN = 40
_PICTURES = (".svg", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `simulate` can be told."""
    parser.add_argument(
        "--fleet", required=True, type=Path, metavar="FILE", help="the fleet (YAML)"
    )
    parser.add_argument(
        "--pixels", required=True, type=positive("pixels"), help="of the image, as in 100e6"
    )
    parser.add_argument("--pipeline", help="'gray | canny low=50 high=150', or a configured name")
    parser.add_argument(
        "--tiles", help="auto, 'size 512x512' (w x h) or 'grid 3x1' (columns x rows)"
    )
    parser.add_argument("--seed", type=int, default=1, help="what chance decides (default: 1)")
    parser.add_argument(
        "--gantt", type=_picture, metavar="FILE", help="draw who did what when: .svg or .png"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write a trace for ui.perfetto.dev (JSON)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run_simulation(config: GatewayConfig, options: argparse.Namespace, console: Console) -> int:
    """Simulate, print the figures, and write what was asked for; 1 where the job did not end.

    Raises ConfigError for a wrong fleet file, and UsageError for a pipeline or plan that is none.
    """
    fleet = load_fleet(options.fleet, options.seed)
    wanted = config.pipeline if options.pipeline is None else options.pipeline
    text = config.pipelines.get(wanted.strip(), wanted)
    plan = parse_tile_plan(options.tiles or config.tiles)
    limit = config.wire.max_message_bytes
    if config.wire.encoding == "base64":
        limit = limit * 3 // 4
    job = planned_job("job", text, options.pixels, plan, fleet, limit)
    outcome = simulate(fleet, [job], options.seed, policy=config.scheduler)
    title = f"{text} on {options.pixels / 1e6:g} MP: {outcome.verdict}"
    if options.gantt is not None:
        _draw(outcome, {one.id: one.workers for one in fleet.devices}, title, options.gantt)
    if options.trace is not None:
        _write(options.trace, trace(outcome).encode())
    if options.json:
        print(json.dumps(_as_json(outcome), indent=2))
    else:
        _show(outcome, job, console)
        print(outcome.verdict)
    return 0 if outcome.done else 1


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(f"{text!r}: a picture's name ends in .svg or .png")
    return path


def _draw(outcome: Outcome, workers: dict[str, int], title: str, path: Path) -> None:
    lanes = [(device.id, workers[device.id]) for device in outcome.devices]
    record = outcome.record
    chart = Chart(title, lanes, record.spans, record.marks, outcome.makespan_s, outcome.bound_s)
    drawing = gantt(chart)
    _write(path, png(drawing) if path.suffix.lower() == ".png" else svg(drawing).encode())


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}") from None


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "seed": outcome.seed,
        "makespan_s": outcome.makespan_s,
        "bound_s": _finite(outcome.bound_s),
        "ratio": _finite(outcome.ratio),
        "done": outcome.done,
        "retries": outcome.retries,
        "hedges": outcome.hedges,
        "duplicates": outcome.duplicates,
        "wasted": outcome.wasted,
        "events": outcome.events,
        "messages": outcome.counts,
        "devices": [asdict(device) for device in outcome.devices],
        "error": next((job.error for job in outcome.jobs if job.error), None),
    }


def _finite(value: float) -> float | None:
    # JSON has no infinity; the bound of a job that never ended is none.
    return value if value < float("inf") else None


def _show(outcome: Outcome, job: JobWork, console: Console) -> None:
    console.print(_devices(outcome))
    if len(outcome.devices) > _SHOWN:
        left_out = len(outcome.devices) - _SHOWN
        console.print(f"… and {left_out} more, all between these", highlight=False)
    console.print(
        f"{job.tiles} tiles, {outcome.retries} retries, {outcome.hedges} hedges, "
        f"{outcome.duplicates} duplicates, {outcome.wasted:.1%} of the work for nothing, "
        f"{outcome.events} events",
        highlight=False,
    )
    if outcome.counts:
        counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items())
        console.print(counts, highlight=False)


def _devices(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device")
    for heading in ("tiles", "MP", "busy", "wasted", "used", "crashes", "quarantine"):
        table.add_column(heading, justify="right")
    for device in _extremes(outcome.devices):
        table.add_row(
            device.id,
            str(device.tiles),
            f"{device.pixels / 1e6:.2f}",
            f"{device.busy_s:.2f} s",
            f"{device.wasted_s:.2f} s" if device.wasted_s else "",
            f"{device.utilisation:.0%}",
            str(device.crashes or ""),
            f"{device.quarantined_s:.1f} s" if device.quarantined_s else "",
        )
    return table


def _extremes(devices: tuple[DeviceFigures, ...]) -> tuple[DeviceFigures, ...]:
    """All of a small fleet; of a large one the busiest and the idlest."""
    if len(devices) <= _SHOWN:
        return devices
    ranked = sorted(devices, key=lambda device: device.utilisation, reverse=True)
    return (*ranked[: _SHOWN // 2], *ranked[-_SHOWN // 2 :])
