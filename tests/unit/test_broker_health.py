"""The broker's counter of dropped messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from fogmqtt.gateway.broker_health import DISCONNECTING_LIMITS, LIMITS, REMEDY, DropCounter
from fogmqtt.gateway.jobs.report import Report


def test_only_what_the_counter_rises_by_is_told(caplog: pytest.LogCaptureFixture) -> None:
    drops, report = DropCounter(), Report("j1", "in.png", "gray")
    for payload in (b"7", b"7", b"9", b"0", b"3"):
        report.dropped += drops.increase(payload)
    assert report.dropped == 2 + 3, "what was before is not ours, and a new broker begins at 0"
    assert caplog.text.count("raise max_queued_messages") == 2
    told = report.as_json()["dropped"]
    assert isinstance(told, dict)
    assert told["messages"] == 5
    assert "mosquitto.conf" in told["remedy"]


def test_the_counter_of_another_broker_is_not_compared_with_this_ones() -> None:
    drops = DropCounter()
    drops.connected("mqtt://first")
    assert [drops.increase(one) for one in (b"5", b"7")] == [0, 2]
    drops.connected("mqtt://second")
    assert [drops.increase(one) for one in (b"500", b"501")] == [0, 1]
    drops.connected("mqtt://second")
    assert drops.increase(b"504") == 3, "what was dropped while the link was down counts"


@pytest.mark.parametrize("payload", [b"", b"-1", b"many", b"9" * 10_000, b"\xff"])
def test_what_is_no_count_changes_nothing(payload: bytes) -> None:
    drops = DropCounter()
    assert [drops.increase(one) for one in (b"1", payload, b"1")] == [0, 0, 0]


def test_the_remedy_names_all_four_limits_that_drop_and_what_they_are() -> None:
    assert [limit.name for limit in LIMITS] == [
        "max_queued_messages",
        "max_queued_bytes",
        "max_inflight_messages",
        "max_inflight_bytes",
    ]
    assert (
        "max_queued_messages (1000 unless set, 10000 in broker/mosquitto.conf; never 0)" in REMEDY
    )
    assert "max_queued_bytes (no limit unless set, 268435456 in broker/mosquitto.conf)" in REMEDY
    assert "max_inflight_messages (20 unless set)" in REMEDY
    assert "max_inflight_bytes (no limit unless set)" in REMEDY
    assert all(name in REMEDY for name in DISCONNECTING_LIMITS), (
        "they are no remedy for drops, and told as such"
    )


def test_what_the_remedy_says_of_our_own_configuration_is_true() -> None:
    lines = (Path(__file__).parents[2] / "broker/mosquitto.conf").read_text("utf-8").splitlines()
    said = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    for limit in LIMITS:
        assert said.get(limit.name) == (None if limit.configured is None else str(limit.configured))
