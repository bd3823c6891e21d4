"""An outage of the broker is said once and then less and less often; a takeover is named."""

from __future__ import annotations

from fogmqtt.transport.link_history import LinkHistory


def said(history: LinkHistory, begin: float, end: float) -> list[float]:
    """When an outage with an attempt every 5 s is said."""
    times = [begin + 5.0 * number for number in range(int((end - begin) / 5))]
    return [time - begin for time in times if history.is_due(time)]


def test_a_day_without_a_broker_is_few_lines() -> None:
    times = said(LinkHistory("eya"), 1000.0, 1000.0 + 86_400)
    assert times[:5] == [0.0, 10.0, 30.0, 70.0, 150.0]
    assert len(times) < 40


def test_the_next_outage_is_said_at_once() -> None:
    history = LinkHistory("eya")
    said(history, 0.0, 3600.0)
    history.connected(3600.0)
    assert said(history, 3601.0, 3621.0) == [0.0, 10.0]


def test_a_quick_series_of_losses_is_named_as_a_takeover() -> None:
    history = LinkHistory("eya")
    texts = []
    for number in range(4):
        history.connected(2.0 * number)
        texts.append(history.lost("the connection broke", 2.0 * number + 1))
    assert texts[:2] == ["the connection broke"] * 2
    assert all("uses the client id 'eya'" in text for text in texts[2:])
    history.connected(100.0)
    assert history.lost("the connection broke", 200.0) == "the connection broke"
