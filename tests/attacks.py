"""Attacks on the broker by its own users: a small MQTT client, and what each user tries.

Everything is sent in batches, since a suite of thousands of attempts must be quick. A ping after a
batch says that the broker has handled it.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.packets import Framer

Protocol = Literal[4, 5]
_PATIENCE_S = 30.0
_CONNACK, _PUBLISH, _PINGRESP = 2, 3, 13

#: Whose topics are attacked: devices, gateways, programs, and names that nobody has.
DEVICES = ("eya", "manar", "made-up")
GATEWAYS = ("mariem", "mariem-run", "made-up")
PROGRAMS = ("app", "other", "made-up")


def _topics() -> Iterator[str]:
    users = sorted({*DEVICES, *GATEWAYS, *PROGRAMS, "dashboard", "local"})
    for name in users:
        for leaf in ("status", "info", "tiles", "control"):
            yield f"devices/{name}/{leaf}"
        for leaf in ("status", "info", "dead", "updates", "requests/x", "answers/x"):
            yield f"gateways/{name}/{leaf}"
        for leaf in ("state", "devices/eya", "announced"):
            yield f"gateways/{name}/{leaf}"
        yield from (f"gateways/mariem/results/{name}", f"gateways/mariem-run/results/{name}")
        yield from (f"submit/edges/{name}", f"submit/edges/{name}/t", f"cancel/{name}")
        yield from (f"replies/{name}", f"replies/{name}/image", f"replies/{name}/t/status")
    for name in ("yard", "eya"):
        for leaf in ("status", "source", "state", "facts", "events", "motion", "enabled"):
            yield f"streams/{name}/{leaf}"
        yield f"streams/{name}/enabled/set"
        for leaf in ("in", "wanted", "frame", "preview", "snapshot"):
            yield f"frames/{name}/{leaf}"
    yield from ("latest/edges/image", "latest/made-up/facts", "jobs/j1/status", "gateways/mariem/x")
    yield from ("", "x", "devices", "devices/eya", "devices/eya/tiles/x", "submit/edges")


#: Every kind of topic for every name, and some that are none of ours.
TOPICS = (
    *(f"fog/v1/{topic}".rstrip("/") for topic in _topics()),
    "fog/v2/devices/eya/status",
    "homeassistant/camera/x/config",
    "x",
)
#: Filters that stand for many topics.
WILD = (
    *("#", "+/#", "fog/#", "fog/v1/#", "fog/v1/+/+/+", "fog/v1/devices/+/+", "fog/v1/+/+/tiles"),
    *("fog/v1/gateways/+/results/+", "fog/v1/submit/+/+", "fog/v1/submit/+/+/+"),
    *("fog/v1/replies/#", "fog/v1/cancel/+", "fog/v1/gateways/#", "fog/v1/jobs/#"),
)

#: What each user of the shipped access list may write and read: an expression of topics below
#: fog/v1.
WRITES = {
    "eya": r"devices/eya/(status|info)|gateways/(mariem|mariem-run)/results/eya|frames/eya/in",
    "app": r"submit/edges/app(/t)?|cancel/app",
    "other": r"submit/edges/other(/t)?|cancel/other",
    "dashboard": r"gateways/mariem/requests/x|streams/[^/]+/enabled/set",
    "homeassistant": r"streams/[^/]+/enabled/set",
    "mariem-run": r"devices/(eya|manar)/(tiles|control)|gateways/mariem-run/(status|info)",
}
READS = {
    "eya": r"devices/eya/(tiles|control|info)|frames/eya/wanted",
    "app": r"replies/app(/.*)?|latest/.*",
    "other": r"replies/other(/.*)?|latest/.*",
    "dashboard": r"devices/[^/]+/(status|info)|gateways/[^/]+/(status|info|dead)"
    r"|gateways/mariem/(answers/x|updates)|jobs/j1/status|(streams|frames)/[^/]+/[^/]+",
    "homeassistant": r"gateways/[^/]+/(status|state|devices/[^/]+)|(streams|frames)/[^/]+/[^/]+",
    "mariem-run": r"devices/[^/]+/(status|info)|gateways/mariem-run/(results/[^/]+|status|info)"
    r"|streams/[^/]+/(status|source|state|enabled)",
}
ATTACKERS = tuple(WRITES)


def allowed(rules: dict[str, str], user: str, topics: Iterable[str] = TOPICS) -> set[str]:
    """The topics that a user may write or read. Home Assistant has some of its own."""
    own = "|homeassistant/.*" if user == "homeassistant" and rules is READS else ""
    rule = re.compile(f"fog/v1/({rules[user]}){own}")
    return {topic for topic in topics if rule.fullmatch(topic)}


class Shut(Exception):
    """The broker does not let the client in, or ended the connection."""


@dataclass
class Client:
    """A connection. `will` is a topic on which the broker publishes when it breaks."""

    port: int
    user: str = ""
    password: str = ""
    protocol: Protocol = 5
    tls: ssl.SSLContext | None = None
    will: str = ""
    _framer: Framer = field(default_factory=Framer, init=False)
    _last_id: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._socket: socket.socket = socket.create_connection(
            ("127.0.0.1", self.port), _PATIENCE_S
        )
        try:
            if self.tls is not None:
                self._socket = self.tls.wrap_socket(self._socket, server_hostname="localhost")
            self._socket.sendall(self._connect())
            packet = next(self._packets())
        except (OSError, StopIteration) as problem:
            self._socket.close()
            raise Shut(str(problem)) from None
        code = packet[3]
        if packet[0] >> 4 != _CONNACK or code:
            self._socket.close()
            raise Shut(f"reason {code:#x}")

    def publish(self, messages: Iterable[tuple[str, bytes]], *, retain: bool = False) -> None:
        """Publish with QoS 1 and wait until the broker has handled all."""
        head = 0x33 if retain else 0x32
        self._socket.sendall(
            b"".join(
                _packet(head, _text(topic), self._id(), self._no_properties, payload)
                for topic, payload in messages
            )
        )
        self.heard()

    def subscribe(self, filters: Iterable[str]) -> dict[str, bytes]:
        """Subscribe with QoS 0, and return what comes until the broker has handled it."""
        self._socket.sendall(
            b"".join(
                _packet(0x82, self._id(), self._no_properties, _text(one), b"\0") for one in filters
            )
        )
        return self.heard()

    def heard(self) -> dict[str, bytes]:
        """What the broker has sent until it answers a ping: payloads by topic."""
        self._socket.sendall(b"\xc0\0")
        found: dict[str, bytes] = {}
        for packet in self._packets():
            kind = packet[0] >> 4
            if kind == _PINGRESP:
                return found
            if kind == _PUBLISH:
                topic, payload = self._message(packet)
                found[topic] = payload
        raise Shut("the broker ended the connection")

    def vanish(self) -> None:
        """Break the connection without a farewell, so that the broker publishes the will."""
        if self.tls is None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.sendall(b"\xe0\0")
        self._socket.close()

    @property
    def _no_properties(self) -> bytes:
        return b"\0" if self.protocol == 5 else b""

    def _id(self) -> bytes:
        self._last_id = self._last_id % 65535 + 1
        return struct.pack(">H", self._last_id)

    def _connect(self) -> bytes:
        named = 0xC0 if self.user else 0
        flags = 0x02 | (0x0C if self.will else 0) | named
        will = self._no_properties + _text(self.will) + _text("will") if self.will else b""
        who = _text(self.user) + _text(self.password) if self.user else b""
        head = _text("MQTT") + bytes((self.protocol, flags)) + b"\0\x3c" + self._no_properties
        return _packet(0x10, head, _text("any"), will, who)

    def _packets(self) -> Iterator[bytes]:
        while data := self._socket.recv(65536):
            yield from self._take(data)

    def _take(self, data: bytes) -> list[bytes]:
        return self._framer.feed(data)

    def _message(self, packet: bytes) -> tuple[str, bytes]:
        at = 2
        while packet[at - 1] & 0x80:
            at += 1
        size = int.from_bytes(packet[at : at + 2])
        topic, at = packet[at + 2 : at + 2 + size].decode(), at + 2 + size
        if packet[0] & 0x06:
            at += 2
        return topic, packet[at + (1 + packet[at] if self.protocol == 5 else 0) :]


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text.encode())) + text.encode()


def _packet(head: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length, rest = b"", len(body)
    while True:
        rest, low = divmod(rest, 128)
        length += bytes((low | (0x80 if rest else 0),))
        if not rest:
            return bytes((head,)) + length + body


@dataclass
class Broker:
    """The broker that is attacked, and `tester`, who may say and hear everything.

    With `tls`, attackers come with a certificate instead of a password.
    """

    port: int
    passwords: dict[str, str]
    tester: Client
    protocol: Protocol = 5
    tls: dict[str, ssl.SSLContext] | None = None
    tls_port: int = 0

    @contextmanager
    def client(self, user: str, will: str = "") -> Iterator[Client]:
        one = self.connect(user, will)
        try:
            yield one
        finally:
            one.close()

    def connect(self, user: str, will: str = "") -> Client:
        if self.tls is not None:
            return Client(self.tls_port, protocol=self.protocol, tls=self.tls[user], will=will)
        return Client(self.port, user, self.passwords[user], self.protocol, will=will)


@dataclass(frozen=True)
class Finding:
    """What came through and should not (a hole), or did not and should (a fault of the suite)."""

    attempts: int
    holes: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, attempts: int, through: Iterable[str], right: set[str]) -> Finding:
        came = set(through)
        return cls(attempts, frozenset(came - right), frozenset(right - came))

    def __add__(self, other: Finding) -> Finding:
        return Finding(
            self.attempts + other.attempts, self.holes | other.holes, self.missing | other.missing
        )


def say(broker: Broker, user: str, *, retain: bool) -> Finding:
    """Publish on every topic."""
    broker.tester.heard()
    with broker.client(user) as attacker:
        attacker.publish(((topic, b"attack") for topic in TOPICS), retain=retain)
    through = [topic for topic, what in broker.tester.heard().items() if what == b"attack"]
    broker.tester.publish(((topic, b"") for topic in through), retain=True)
    return Finding.of(len(TOPICS), through, allowed(WRITES, user))


def leave_wills(broker: Broker, user: str) -> Finding:
    """Break a connection with a will for every topic."""
    broker.tester.heard()
    for topic in TOPICS:
        try:
            broker.connect(user, topic).vanish()
        except Shut:
            continue  # such a will is refused
    with broker.client(user) as last:  # by then the broker has seen the others break
        last.heard()
    through = [topic for topic, what in broker.tester.heard().items() if what == b"will"]
    return Finding.of(len(TOPICS), through, allowed(WRITES, user))


def listen(broker: Broker, user: str, share: str = "", *, retained: bool = False) -> Finding:
    """Subscribe to every topic and to wildcards, by itself or in a shared group."""
    filters = [f"$share/{share}/{one}" if share else one for one in (*TOPICS, *WILD)]
    said = [(topic, b"said") for topic in TOPICS]
    if retained:
        broker.tester.publish(said, retain=True)
    with broker.client(user) as attacker:
        came = attacker.subscribe(filters)
        if not retained:
            broker.tester.publish(said)
        came |= attacker.heard()
        through = [topic for topic, what in came.items() if what == b"said"]
    if retained:
        broker.tester.publish(((topic, b"") for topic in TOPICS), retain=True)
    broker.tester.heard()
    right = set() if share and retained else allowed(READS, user)
    return Finding.of(len(filters), through, right)


def steal(broker: Broker, user: str, owner: str, topic: str, sender: str, group: str) -> Finding:
    """Join groups that share the topic, so that its owner may miss what is sent."""
    with broker.client(owner) as victim, broker.client(user) as thief:
        victim.subscribe((topic,))
        thief.subscribe((f"$share/{group}/{topic}", f"$share/{group}/#"))
        with broker.client(sender) as client:
            target = topic.replace("edges/+", f"edges/{sender}").replace("+", "edges", 1)
            target = target.replace("+", sender)
            missing = set()
            for number in range(40):
                client.publish([(target, f"{number}".encode())])
                if victim.heard().get(target) != f"{number}".encode():
                    missing.add(f"{target} {number}")
    broker.tester.heard()
    return Finding(40, frozenset(missing))
