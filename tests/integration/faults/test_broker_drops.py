"""What the broker drops without telling anybody is told by the gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from fogmqtt.gateway.broker_health import DROPPED, LIMITS
from fogmqtt.transport.base import Connected, Published, Received
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, Probe, RealBroker, probe
from tests.processes import photo, private_fog

pytestmark = pytest.mark.broker

#: The counter comes each second, and little is kept for who is slow.
STINGY = "sys_interval 1\nmax_queued_messages 100\n"
REPLIES = "fog/v1/replies/me"
UPTIME = "$SYS/broker/uptime"


@contextmanager
def slow_client(url: str) -> Iterator[None]:
    """Takes what comes and never acknowledges it."""
    inbox = Inbox()
    transport = PahoTransport(Link(url, "slow", 5), inbox.put)
    transport.subscribe("flood", manual_ack=True)
    transport.start()
    try:
        inbox.take(Connected)
        yield
    finally:
        transport.close()


def ended(client: Probe) -> dict[str, object]:
    while True:
        said: dict[str, object] = json.loads(client.message(f"{REPLIES}/status", within=60).payload)
        if said["state"] in ("done", "failed"):
            return said


def test_messages_that_the_broker_drops_are_told_with_what_to_raise(
    broker: object, tmp_path: Path
) -> None:
    del broker
    with private_fog(tmp_path, STINGY, GATEWAY__DELIVER="reply", GATEWAY__LOCAL="never") as fog:
        image = fog.save("in.png", photo(200, 300))
        gateway = fog.serve()
        with fog.probe(f"{REPLIES}/#", client_id="me") as me:
            me.publish("fog/v1/submit/edges/me", image.read_bytes())
            gateway.says("accepted as")
            with slow_client(fog.broker.url):
                for _ in range(400):
                    me.publish("flood", b"x")
                gateway.says("messages to slow clients: raise max_queued_messages (1000", within=15)
            fog.fleet("eya")
            said = ended(me)
        assert said["state"] == "done"
        assert int(str(said["dropped"])) > 0


#: Of messages of 1 000 bytes for a client that acknowledges nothing, few are kept.
FEW = "sys_interval 1\nmax_queued_messages 50\n"
FEW_BYTES = "sys_interval 1\nmax_inflight_messages 5\nmax_queued_bytes 30000\n"
#: Each limit: two configurations that differ in it alone.
RAISED = {
    "max_queued_messages": (FEW, FEW.replace(" 50", " 90")),
    "max_queued_bytes": (FEW_BYTES, FEW_BYTES.replace("30000", "70000")),
    "max_inflight_messages": (FEW, f"{FEW}max_inflight_messages 60\n"),
    "max_inflight_bytes": (FEW_BYTES, f"{FEW_BYTES}max_inflight_bytes 40000\n"),
}


def dropped_of(broker: RealBroker, messages: int) -> int:
    """How many of so many messages the broker drops on their way to a slow client."""
    counts = [0]
    with slow_client(broker.url), probe(broker.url, DROPPED, UPTIME) as me:
        for number in range(messages):
            me.publish("flood", b"x" * 1000, token=number)
        taken = ticks = 0
        # The broker tells its counters each second, those that changed; the second time after it
        # took the last message all drops are in.
        while ticks < 2:
            event = me.inbox.take(object, within=15)
            taken += isinstance(event, Published)
            if isinstance(event, Received) and event.topic == DROPPED:
                counts.append(int(event.payload))
            elif isinstance(event, Received):
                ticks += taken == messages
    return max(counts)


def test_raising_any_of_the_limits_that_are_named_drops_less(
    private_broker: Callable[..., RealBroker],
) -> None:
    configs = sorted({more for pair in RAISED.values() for more in pair})
    brokers = [private_broker(more=more) for more in configs]
    with ThreadPoolExecutor(len(brokers)) as pool:
        counts = pool.map(dropped_of, brokers, [150] * len(brokers))
    dropped = dict(zip(configs, counts, strict=True))
    assert list(RAISED) == [limit.name for limit in LIMITS]
    for name, (low, high) in RAISED.items():
        assert dropped[low] - dropped[high] >= 30, f"{name}: {dropped[low]}, {dropped[high]}"
