"""`broker.url` names several brokers: they are tried in order, and the next one after a loss."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fogmqtt.transport.base import Connected, Disconnected, Received, Refused, Unavailable
from fogmqtt.transport.link import Link, Protocol
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, RealBroker, probe
from tests.processes import Fog, edges_of, fog_at, photo, read, same
from tests.strict import REFUSE, strict

BOTH: tuple[Protocol, ...] = (5, "3.1.1")


@pytest.fixture
def brokers(broker: object, tmp_path: Path) -> Iterator[tuple[RealBroker, RealBroker]]:
    """Two brokers that do not know each other."""
    del broker
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    both = RealBroker(tmp_path / "first"), RealBroker(tmp_path / "second")
    for one in both:
        one.start()
    yield both
    for one in both:
        one.kill()


@pytest.fixture
def fog(brokers: tuple[RealBroker, RealBroker], tmp_path: Path) -> Iterator[Fog]:
    urls = ",".join(one.url for one in brokers)
    with fog_at(tmp_path, brokers[0], BROKER__URL=urls) as made:
        yield made


def test_what_one_broker_does_not_grant_is_asked_of_the_next_one(
    brokers: tuple[RealBroker, RealBroker],
) -> None:
    first, second = brokers
    inbox, version = Inbox(), "$SYS/broker/version"
    with strict(first.port, REFUSE) as wire:
        transport = PahoTransport(Link(wire.url, "asks", others=(second.url,)), inbox.put)
        transport.subscribe(version, optional=True)
        transport.start()
        assert inbox.take(Unavailable).topic_filter == version
        wire.open = False
        wire.cut()
        inbox.take(Disconnected)
        assert inbox.message(version).payload.startswith(b"mosquitto")
        transport.close()
        assert wire.asked == 1


@pytest.mark.parametrize("protocol", BOTH)
def test_brokers_are_tried_in_order_and_the_next_one_after_a_loss(
    brokers: tuple[RealBroker, RealBroker], protocol: Protocol
) -> None:
    first, second = brokers
    inbox = Inbox()
    link = Link(first.url, "roams", protocol, others=(second.url,))
    transport = PahoTransport(link, inbox.put)
    transport.subscribe("echo")
    transport.start()
    assert inbox.take(Connected).url == first.url
    first.kill()
    inbox.take(Disconnected)
    assert inbox.take(Connected).url == second.url
    transport.publish("echo", b"x")
    assert inbox.take(Received).payload == b"x"
    first.start()
    second.kill()
    inbox.take(Disconnected)
    assert inbox.take(Connected).url == first.url
    transport.close()


def test_the_others_are_tried_at_once_if_the_first_is_not_there(
    brokers: tuple[RealBroker, RealBroker],
) -> None:
    first, second = brokers
    first.kill()
    inbox = Inbox()
    transport = PahoTransport(Link(first.url, "x", others=(second.url,)), inbox.put)
    transport.start()
    refused = inbox.take(Refused)
    assert first.url.removeprefix("mqtt://") in refused.reason
    assert inbox.take(Connected, within=0.9).url == second.url
    transport.close()


def test_a_refusal_is_final_only_if_all_brokers_refuse_for_good(
    brokers: tuple[RealBroker, RealBroker],
) -> None:
    first, second = brokers
    first.kill()
    first.more = "password_file /dev/null\nallow_anonymous false"
    first.start()
    inbox = Inbox()
    transport = PahoTransport(Link(first.url, "x", others=(second.url,)), inbox.put)
    transport.start()
    assert not inbox.take(Refused).final
    assert inbox.take(Connected).url == second.url
    transport.close()


def test_a_job_in_the_midst_of_which_its_broker_dies_ends_at_the_next_one(
    fog: Fog, brokers: tuple[RealBroker, RealBroker]
) -> None:
    first, second = brokers
    gateway = fog.serve(GATEWAY__DELIVER="outbox")
    devices = fog.fleet("eya", "manar", speed=300_000)
    image = fog.save("in.png", photo(900, 1200))
    with probe(first.url, "fog/v1/jobs/+/status", client_id="me") as me:
        me.publish("fog/v1/submit/edges/me", image.read_bytes())
        while json.loads(me.inbox.take(Received, within=60).payload).get("done", 0) < 3:
            pass
        first.kill()
    for program in (gateway, *devices):
        program.says(f"lost the broker at {first.url}: ")
        program.says("; trying the next one")
        program.says(f"is online at {second.url}")
    gateway.says(": done in ")
    (result,) = (fog.folder / "outbox").glob("*.png")
    assert same(read(result), edges_of(image))


def test_the_option_broker_is_given_several_times_or_with_commas(
    fog: Fog, brokers: tuple[RealBroker, RealBroker]
) -> None:
    first, second = brokers
    first.kill()
    eya = fog.device("eya", "--broker", first.url, "--broker", second.url)
    eya.says(f"eya is online at {second.url}")
    both = f"{first.url},{second.url}"
    listed = fog.command("--broker", both, "devices", "--json", BROKER__URL="mqtt://127.0.0.1:1")
    assert list(json.loads(listed.stdout)) == ["eya"], listed.stderr


def test_without_any_broker_a_run_names_all_of_them(
    fog: Fog, brokers: tuple[RealBroker, RealBroker]
) -> None:
    for one in brokers:
        one.kill()
    image = fog.save("in.png", photo(60, 80))
    ran = fog.run(image, "-o", "out.png", code=3, BROKER__CONNECT_TIMEOUT_S="2")
    assert all(one.url in ran.error for one in brokers)
