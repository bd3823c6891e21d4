"""What the broker drops without telling anybody is told by the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fogmqtt.transport.base import Connected
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, Probe
from tests.processes import photo, private_fog

pytestmark = pytest.mark.broker

#: The counter comes each second, and little is kept for who is slow.
STINGY = "sys_interval 1\nmax_queued_messages 100\n"
REPLIES = "fog/v1/replies/me"


@contextmanager
def slow_client(url: str) -> Iterator[None]:
    """Takes what comes and never acknowledges it."""
    inbox = Inbox()
    transport = PahoTransport(Link(url, "slow", 5), inbox.put)
    transport.subscribe("flood", hold=True)
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
                gateway.says("messages to slow clients: raise max_queued_messages", within=15)
            fog.fleet("eya")
            said = ended(me)
        assert said["state"] == "done"
        assert int(str(said["dropped"])) > 0
