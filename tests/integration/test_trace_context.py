"""The trace of a submission is that of its tiles and results, on both versions of MQTT."""

from __future__ import annotations

import pytest

from fogmqtt.transport.base import MessageProperties, Received
from fogmqtt.wire.messages import Accepted, Decoder, Result, TileTask
from tests.processes import Fog, photo

pytestmark = pytest.mark.broker

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

STATE = "vendor=a1,other=b2"


def test_tiles_and_results_carry_the_trace_of_their_submission(lone_fog: Fog) -> None:
    path = lone_fog.save("in.png", photo())
    lone_fog.device("eya")
    lone_fog.device("manar", BROKER__PROTOCOL="3.1.1")
    lone_fog.serve(GATEWAY__LOCAL="never", TILES="grid 4x4")
    decoder = Decoder(TileTask, Result, Accepted)
    topics = ("fog/v1/devices/+/tiles", "fog/v1/gateways/+/results/+", "fog/v1/replies/me/image")
    seen: dict[tuple[type, str], Received] = {}
    with lone_fog.probe(*topics, client_id="me") as me:
        for _ in range(20):  # until both devices have done tiles
            marks = MessageProperties(traceparent=TRACE, user=(("tracestate", STATE),))
            me.publish("fog/v1/submit/edges/me", path.read_bytes(), properties=marks)
            while not (heard := me.inbox.take(Received, within=60)).topic.endswith("image"):
                message = decoder.decode(heard.payload)
                if not isinstance(message, Accepted):
                    assert (message.traceparent, message.tracestate) == (TRACE, STATE)
                    device = heard.topic.split("/")[3 if isinstance(message, TileTask) else 5]
                    seen[type(message), device] = heard
            if len(seen) == 4:
                break
    for (kind, device), heard in seen.items():
        # A client of MQTT 3.1.1 has no properties to send; the field is there all the same.
        has_properties = kind is TileTask or device == "eya"
        assert heard.properties.traceparent == (TRACE if has_properties else "")
        assert heard.properties.user == ((("tracestate", STATE),) if has_properties else ())
    assert len(seen) == 4
