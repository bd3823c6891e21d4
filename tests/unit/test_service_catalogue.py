"""Clients get the operators for a menu, try pipelines, and ask what more boards would bring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from fogmqtt.operators.api import registry
from fogmqtt.operators.api.pipeline import parse, run_whole
from fogmqtt.transport.base import Received
from fogmqtt.transport.memory import MemoryTransport
from fogmqtt.wire import service_messages as msg
from fogmqtt.wire.messages import DeviceInfo, encode
from tests.fog import Inbox, wait_for
from tests.processes import PATIENCE_S, photo
from tests.serving import PICTURE, Serving
from tests.unit.test_service import client

IMAGE = photo(60, 80)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(str(tmp_path / "spool")) as made:
        yield made


def announce(serving: Serving, name: str, ns: float, **more: object) -> None:
    """A device that says how fast it is."""
    link = MemoryTransport(serving.broker, name, Inbox().put)
    link.start()
    rates = dict.fromkeys(registry.names(), ns)
    info = DeviceInfo(
        boot=name,
        sequence=1,
        uptime_s=1.0,
        operators=list(registry.names()),
        rates=rates,
        **{"workers": 1, **more},  # type: ignore[arg-type]
    )
    link.publish(f"fog/v1/devices/{name}/info", encode(info, "base64"), retain=True)
    link.publish(f"fog/v1/devices/{name}/status", b"online", retain=True)
    wait_for(lambda: name in serving.server.gateway.online(), within=PATIENCE_S, what=name)


def test_all_operators_are_listed_with_what_a_form_needs(serving: Serving) -> None:
    table = client(serving).ask(msg.ListOperators, msg.OperatorTable)
    assert [card.name for card in table.operators] == list(registry.names())
    cards = {card.name: card for card in table.operators}
    block = next(one for one in cards["adaptive"].parameters if one.name == "block")
    assert (block.type, block.minimum, block.maximum, block.step) == ("int", 3, 127, 2)
    assert (block.default, block.unit) == (11, "pixels")
    assert cards["canny"].group == "edges"
    assert cards["stats"].measures
    assert len(encode(table)) < 200_000
    assert msgspec.json.encode(table)


def test_a_pipeline_is_tried_without_a_job_in_the_list(serving: Serving) -> None:
    page = client(serving)
    view = page.ask(msg.TryPipeline, msg.View, pipeline="gray | invert", data=PICTURE)
    shown = cv2.imdecode(np.frombuffer(view.data, np.uint8), cv2.IMREAD_GRAYSCALE)
    expected = run_whole(parse("gray | invert"), IMAGE, IMAGE)
    assert isinstance(expected, np.ndarray)
    assert np.abs(shown.astype(int) - expected).mean() < 8
    assert page.ask(msg.ListJobs, msg.JobPage).jobs == []
    topics = [one.topic for one in page.heard.all() if isinstance(one, Received)]
    assert not [topic for topic in topics if "/jobs/" in topic]


@pytest.mark.parametrize(
    ("pipeline", "data", "kind"),
    [
        ("invrt", PICTURE, "invalid"),
        ("invert", b"no image", "unsupported"),
        ("invert", b"", "unsupported"),
        ("invert", bytes(msg.PIECE_BYTES + 1), "too-large"),
        ("crop width=5000 height=1", PICTURE, "invalid"),
    ],
)
def test_a_trial_that_cannot_be_done_says_why(
    serving: Serving, pipeline: str, data: bytes, kind: str
) -> None:
    refusal = client(serving).refused(msg.TryPipeline, pipeline=pipeline, data=data)
    assert refusal.kind == kind
    assert refusal.sentence


def test_an_image_that_is_large_behind_few_bytes_is_not_tried(serving: Serving) -> None:
    bomb = cv2.imencode(".png", np.zeros((4000, 4000), np.uint8))[1].tobytes()
    assert len(bomb) < msg.PIECE_BYTES
    assert (
        "pixels" in client(serving).refused(msg.TryPipeline, pipeline="invert", data=bomb).sentence
    )


def test_more_boards_make_a_forecast_shorter(serving: Serving) -> None:
    page = client(serving)
    asked = {"pipeline": "median ksize=5", "height": 4000, "width": 6000}
    assert page.refused(msg.SimulateFleet, **asked).kind == "invalid"
    announce(serving, "eya", 200.0)
    announce(serving, "manar", 400.0, workers=2)
    now = page.ask(msg.SimulateFleet, msg.FleetForecast, **asked)
    assert now.seconds == now.seconds_with_more > 1
    more = page.ask(msg.SimulateFleet, msg.FleetForecast, more=2, like="eya", **asked)
    assert more.seconds == now.seconds
    assert more.seconds_with_more < 0.7 * now.seconds
    assert more.rows == ["eya 1", "manar 1", "manar 2", "added-1 1", "added-2 1"]
    assert {bar.row for bar in more.bars} == set(range(5))
    assert max(bar.end_s for bar in more.bars) <= more.seconds_with_more
    assert "2 more boards like eya" in more.sentence
    assert page.refused(msg.SimulateFleet, like="nobody", **asked).kind == "invalid"
    huge = {**asked, "height": 1_000_000, "width": 1_000_000}
    assert page.refused(msg.SimulateFleet, **huge).kind == "too-large"
