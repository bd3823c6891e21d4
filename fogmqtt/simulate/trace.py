"""A run in Chrome's JSON trace format, for chrome://tracing and ui.perfetto.dev."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fogmqtt.simulate.outcome import SimulationResult
from fogmqtt.simulate.record import EventMark, Span

_US = 1e6


def trace(outcome: SimulationResult) -> str:
    """JSON text: a process per device, a thread per worker, times in microseconds."""
    numbers = {device.id: number for number, device in enumerate(outcome.devices, 1)}
    events = [
        *_names(numbers),
        *(_span(span, numbers[span.device]) for span in outcome.record.spans),
        *(_mark(mark, numbers.get(mark.device, 0)) for mark in outcome.record.marks),
    ]
    other = {"verdict": outcome.verdict, "seed": outcome.seed}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": other})


def _names(numbers: dict[str, int]) -> Iterator[dict[str, Any]]:
    for name, number in {"broker": 0, **numbers}.items():
        yield {"ph": "M", "name": "process_name", "pid": number, "args": {"name": name}}
        yield {
            "ph": "M",
            "name": "process_sort_index",
            "pid": number,
            "args": {"sort_index": number},
        }


def _span(span: Span, number: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": f"{span.job} tile {span.tile}",
        "cat": f"{span.state.value},hedge" if span.hedge else span.state.value,
        "pid": number,
        "tid": span.worker,
        "ts": span.begin_s * _US,
        "dur": span.seconds * _US,
        "args": {"attempt": span.attempt, "pixels": span.pixels, "state": span.state.value},
    }


def _mark(mark: EventMark, number: int) -> dict[str, Any]:
    return {
        "ph": "i",
        "name": mark.what,
        "cat": "fault",
        "s": "g" if number == 0 else "p",
        "pid": number,
        "tid": 0,
        "ts": mark.at_s * _US,
    }
