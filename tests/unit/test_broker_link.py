"""The link to the broker for coroutines: order, confirmations, refusals, losses."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest

from fogmqtt.errors import NotConnected, PublishRefused, TooLarge
from fogmqtt.gateway import broker_link
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.server.replies import Replies, Reply
from fogmqtt.transport.base import (
    Connected,
    Deliver,
    Disconnected,
    Pong,
    Published,
    Received,
    Will,
)
from tests.gateway_rig import eventually, run

WILL = Will("fog/v1/gateways/mariem/status", b"offline")


class ScriptedTransport:
    """A transport whose broker is the test."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, int, object]] = []
        self.limit = 10**9
        self.pings = 0

    def connect(self, deliver: Deliver, will: Will) -> ScriptedTransport:
        self.deliver = deliver
        return self

    def start(self) -> None:
        self.deliver(Connected())

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, token: object = None, **_: object
    ) -> None:
        if len(payload) > self.limit:
            raise TooLarge(f"{len(payload)} bytes")
        self.sent.append((topic, payload, qos, token))

    def ping(self) -> None:
        self.pings += 1

    def confirm(self, index: int = -1, refusal: str = "") -> None:
        self.deliver(Published(self.sent[index][3], refusal))


def linked() -> tuple[ScriptedTransport, BrokerLink]:
    transport = ScriptedTransport()
    return transport, BrokerLink(transport.connect, WILL)  # type: ignore[arg-type]


async def listen(link: BrokerLink, into: list[object]) -> None:
    take = into.append
    async for item in link.items():
        take(item)


def test_items_come_in_order_from_any_thread() -> None:
    async def test() -> None:
        transport, link = linked()
        items: list[object] = []
        listening = asyncio.ensure_future(listen(link, items))
        link.start()

        def deliver() -> None:
            for number in range(1000):
                transport.deliver(Received(str(number), b""))

        threading.Thread(target=deliver).start()
        await eventually(lambda: len(items) == 1001)
        topics = [item.topic for item in items if isinstance(item, Received)]
        assert topics == [str(number) for number in range(1000)]
        listening.cancel()

    run(test())


def test_a_flood_of_messages_lets_other_coroutines_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages wait, others wait for a few milliseconds."""
    milliseconds = itertools.count()
    monkeypatch.setattr(broker_link, "now", lambda: next(milliseconds) / 1000)

    async def test() -> None:
        transport, link = linked()
        items: list[object] = []
        link.start()
        for number in range(10_000):
            transport.deliver(Received(str(number), b""))
        listening = asyncio.ensure_future(listen(link, items))
        turns = 0
        while len(items) < 10_001:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 1000
        listening.cancel()

    run(test())


def test_a_confirmed_publish_waits_for_the_broker() -> None:
    async def test() -> None:
        transport, link = linked()
        listening = asyncio.ensure_future(listen(link, []))
        link.start()
        await link.up()
        publishing = asyncio.ensure_future(link.publish_confirmed("t", b"x", qos=1))
        await eventually(lambda: transport.sent)
        assert not publishing.done()
        transport.confirm()
        await publishing
        listening.cancel()

    run(test())


@pytest.mark.parametrize("how", ["refused", "lost"])
def test_a_publish_that_the_broker_does_not_take_raises(how: str) -> None:
    async def test() -> None:
        transport, link = linked()
        listening = asyncio.ensure_future(listen(link, []))
        link.start()
        await link.up()
        publishing = asyncio.ensure_future(link.publish_confirmed("t", b"x", qos=1))
        await eventually(lambda: transport.sent)
        if how == "refused":
            transport.confirm(refusal="Not authorized")
        else:
            transport.deliver(Disconnected("the cable"))
        with pytest.raises(PublishRefused if how == "refused" else NotConnected):
            await publishing
        listening.cancel()

    run(test())


# Replies.


def test_a_final_reply_is_published_with_qos_1_at_least_whatever_is_configured() -> None:
    async def test() -> None:
        transport, link = linked()
        listening = asyncio.ensure_future(listen(link, []))
        link.start()
        delivering = asyncio.ensure_future(
            Replies(link, 0).deliver([Reply("image", b"pixels"), Reply("status", b"done")])
        )
        for count in (1, 2):
            await eventually(lambda count=count: len(transport.sent) == count)  # type: ignore[misc]
            transport.confirm()
        await delivering
        assert [(topic, qos) for topic, _, qos, _ in transport.sent] == [
            ("image", 1),
            ("status", 1),
        ]
        listening.cancel()

    run(test())


def test_a_reply_that_was_lost_with_the_link_is_published_again() -> None:
    async def test() -> None:
        transport, link = linked()
        listening = asyncio.ensure_future(listen(link, []))
        link.start()
        owed: list[int] = []
        replies = Replies(link, 1, lambda: owed.append(replies.owed_bytes))
        delivering = asyncio.ensure_future(replies.deliver([Reply("image", b"pixels")]))
        await eventually(lambda: transport.sent)
        assert replies.owed_bytes == 6
        transport.deliver(Disconnected("the cable"))
        await eventually(lambda: not link.connected)
        transport.deliver(Connected())
        await eventually(lambda: len(transport.sent) == 2)
        transport.confirm()
        await delivering
        assert owed == [6, 0]
        listening.cancel()

    run(test())


@pytest.mark.parametrize("how", ["refused", "too large"])
def test_a_reply_that_the_broker_does_not_take_is_told_and_not_counted_as_delivered(
    how: str,
) -> None:
    async def test() -> None:
        transport, link = linked()
        listening = asyncio.ensure_future(listen(link, []))
        link.start()
        if how == "too large":
            transport.limit = 3
        delivering = asyncio.ensure_future(Replies(link, 1).deliver([Reply("image", b"pixels")]))
        if how == "refused":
            await eventually(lambda: transport.sent)
            transport.confirm(refusal="Not authorized")
        with pytest.raises((PublishRefused, TooLarge), match="the reply on image was not taken"):
            await delivering
        listening.cancel()

    run(test())


def test_a_delivery_that_is_cancelled_at_once_owes_nothing() -> None:
    async def test() -> None:
        _, link = linked()
        replies = Replies(link, 1)
        delivering = asyncio.ensure_future(replies.deliver([Reply("image", b"pixels")]))
        await asyncio.sleep(0)
        assert replies.owed_bytes == 6
        delivering.cancel()
        await asyncio.wait([delivering])
        assert replies.owed_bytes == 0

    run(test())


def test_the_link_is_confirmed_when_all_that_arrived_before_the_answer_is_handled() -> None:
    async def test() -> None:
        transport, link = linked()
        items: list[object] = []
        link.start()
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(listen(link, items))
            confirmed = tasks.create_task(link.confirm())
            await eventually(lambda: transport.pings == 1)
            transport.deliver(Received("t", b"1"))
            transport.deliver(Pong(1.0))
            await confirmed
            assert Received("t", b"1") in items
            listener.cancel()

    run(test())


def test_a_broker_that_sends_a_whole_window_is_asked_again() -> None:
    async def test() -> None:
        transport, link = linked()
        link.start()
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(listen(link, []))
            confirmed = tasks.create_task(link.confirm())
            await eventually(lambda: transport.pings == 1)
            for number in range(20):
                transport.deliver(Received("t", bytes([number])))
            transport.deliver(Pong(1.0))
            await eventually(lambda: transport.pings == 2)
            assert not confirmed.done()
            transport.deliver(Pong(2.0))
            await confirmed
            listener.cancel()

    run(test())


def test_a_link_that_breaks_confirms_nothing() -> None:
    async def test() -> None:
        transport, link = linked()
        link.start()
        listening = asyncio.ensure_future(listen(link, []))
        confirmed = asyncio.ensure_future(link.confirm())
        await eventually(lambda: transport.pings == 1)
        transport.deliver(Disconnected("it broke"))
        with pytest.raises(NotConnected, match="it broke"):
            await confirmed
        listening.cancel()

    run(test())
