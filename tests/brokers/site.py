"""Where a trial happens: a running broker, a folder, a topic prefix, and a fog around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fogmqtt.wire.topics import Topics
from tests.brokers.broker import Broker, program
from tests.fog import Probe, probe
from tests.processes import DEVICES, Fog, Program, fog_at

#: Core pixels per second of an emulated device: a job takes long enough to be disturbed.
SPEED = 80_000.0
#: The secret with which gateways share submissions, on MQTT 5.
GROUP = "of-all-gateways-here"


@dataclass
class Site:
    """A broker and the folder of one trial. `letter` keeps the topics of trials apart."""

    broker: Broker
    letter: str
    folder: Path
    topics: Topics = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.topics = Topics(f"fog/{self.letter}")

    @contextmanager
    def fog(self, **settings: str) -> Iterator[Fog]:
        """Gateways and devices of this trial, all ended after it."""
        common = {
            "BROKER__PROTOCOL": str(self.broker.protocol),
            "BROKER__USERNAME": self.broker.username,
            "BROKER__PASSWORD": self.broker.password,
            "WIRE__PREFIX": self.topics.prefix,
            "GATEWAY__INBOX": "",
            "GATEWAY__OUTBOX": "",
            "GATEWAY__DELIVER": "reply",
        }
        with fog_at(self.folder, self.broker, **common | settings) as made:
            yield made

    def fleet(self, fog: Fog, *, slow: bool = False) -> dict[str, Program]:
        """Three devices with QoS 0, 1 and 2 as far as the broker has it, in turn at its nodes."""
        more = ("--emulate-speed", str(SPEED)) if slow else ()
        urls = self.broker.urls
        started = {
            name: fog.device(
                name,
                *more,
                WIRE__QOS=str(min(at, self.broker.max_qos)),
                BROKER__URL=urls[at % len(urls)],
            )
            for at, name in enumerate(DEVICES)
        }
        for name, device in started.items():
            device.says(f"{name} is online")
        return started

    def serve(self, fog: Fog, name: str, node: int = 0) -> Program:
        """A serving gateway with a spool of its own."""
        gateway = fog.start_serving(
            GATEWAY__ID=name,
            GATEWAY__SPOOL=f"spool-{name}",
            GATEWAY__GROUP=GROUP if self.broker.protocol == 5 else "",
            BROKER__URL=self.broker.urls[node],
        )
        gateway.says(f"{name} is online")
        return gateway

    @contextmanager
    def probe(self, *filters: str, node: int = 0, client_id: str = "probe") -> Iterator[Probe]:
        """One more client. Filters are those below the prefix."""
        broker = self.broker
        login = {"username": broker.username or None, "password": broker.password or None}
        topics = [self.topic(one) for one in filters]
        url = broker.urls[node]
        with probe(url, *topics, client_id=client_id, protocol=broker.protocol, **login) as client:
            yield client

    def topic(self, below: str) -> str:
        return f"{self.topics.prefix}/{below}"

    def stock(self, name: str, *more: str) -> list[str]:
        """The command line of mosquitto_pub or mosquitto_sub."""
        broker = self.broker
        version = "mqttv5" if broker.protocol == 5 else "mqttv311"
        command = [program(name), "-h", "127.0.0.1", "-p", str(broker.ports[0]), "-V", version]
        if broker.username:
            command += ["-u", broker.username, "-P", broker.password]
        return [*command, *more]
