"""Submit an image to a serving gateway, and write the result.

    python examples/submit.py photo.jpg edges.png --pipeline edges --broker 192.168.1.10

Needs paho-mqtt and nothing of fogmqtt. A PUBACK only says that the broker has the image. If no
gateway is there at that moment, the broker drops it, and MQTT 5 tells so by the reason 0x10. So a
submitter waits for the status `accepted`, and submits again until it comes.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

#: MQTT 5: the broker took the message, and nobody is subscribed to its topic.
NO_MATCHING_SUBSCRIBERS = 0x10
#: Seconds until the next attempt if nobody is there, and if nobody answers.
NOBODY_S, SILENCE_S = 0.5, 10.0


def main() -> int:
    options = parse_arguments()
    reply = f"submit-{secrets.token_hex(4)}"
    events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, reply, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_connect = lambda *_: client.subscribe(f"{options.prefix}/replies/{reply}/#", qos=1)
    client.on_subscribe = lambda *_: events.put(("subscribed", None))
    client.on_publish = lambda _client, _data, _mid, code, _properties: events.put(("puback", code))
    client.on_message = lambda _client, _data, message: events.put(
        (message.topic.rpartition("/")[2], message.payload)
    )
    client.connect_async(options.broker, options.port)
    client.loop_start()
    topic = f"{options.prefix}/submit/{options.pipeline}/{reply}"
    image = options.image.read_bytes()
    try:
        return follow(events, lambda: client.publish(topic, image, qos=1), options.result)
    finally:
        client.loop_stop()


def follow(events: SimpleQueue[tuple[str, Any]], submit: Callable[[], object], result: Path) -> int:
    """Submit until the image is accepted, then write what comes back. Returns the exit code."""
    submit_at, is_accepted = float("inf"), False
    while True:
        try:
            wait_s = min(max(0.0, submit_at - time.monotonic()), 3600.0)
            what, value = events.get(timeout=wait_s)
        except Empty:
            submit_at = time.monotonic() + SILENCE_S
            submit()
            continue
        match what:
            case "subscribed" if not is_accepted:
                submit_at = time.monotonic()
            case "puback" if value.value == NO_MATCHING_SUBSCRIBERS:
                print("no gateway is there; trying again", file=sys.stderr)
                submit_at = time.monotonic() + NOBODY_S
            case "image" | "facts":
                result.write_bytes(value)
            case "status":
                status = json.loads(value)
                is_accepted, submit_at = True, float("inf")
                print(status["state"], status["job"], status.get("error") or "", file=sys.stderr)
                if status["state"] in ("done", "failed"):
                    return int(status["state"] == "failed")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--pipeline", default="edges")
    parser.add_argument("--broker", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--prefix", default="fog/v1")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
