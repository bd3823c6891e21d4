"""The broker's counter of dropped messages."""

from __future__ import annotations

import pytest

from fogmqtt.gateway.drops import Drops
from fogmqtt.gateway.report import Report


def test_only_what_the_counter_rises_by_is_told(caplog: pytest.LogCaptureFixture) -> None:
    drops, report = Drops(), Report("j1", "in.png", "gray")
    for payload in (b"7", b"7", b"9", b"0", b"3"):
        drops.heard(payload, [report])
    assert report.dropped == 2 + 3, "what was before is not ours, and a new broker begins at 0"
    assert caplog.text.count("max_queued_messages") == 2
    told = report.as_json()["dropped"]
    assert isinstance(told, dict)
    assert told["messages"] == 5
    assert "mosquitto.conf" in told["remedy"]


@pytest.mark.parametrize("payload", [b"", b"-1", b"many", b"9" * 10_000, b"\xff"])
def test_what_is_no_count_changes_nothing(payload: bytes) -> None:
    drops, report = Drops(), Report("j1", "in.png", "gray")
    for one in (b"1", payload, b"1"):
        drops.heard(one, [report])
    assert report.dropped == 0
    assert report.as_json()["dropped"] == {"messages": 0, "remedy": ""}
