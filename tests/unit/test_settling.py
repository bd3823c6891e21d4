"""When a gateway knows the devices that are online: the retained topics are in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices import settling
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.devices.settling import QUIET_S, SETTLE_S, Settling
from tests.gateway_rig import Rig, config, eventually, run


class UpLink:
    """A link that is up and has no items left."""

    connected = True
    idle = True


def connected() -> Settling:
    link: Any = UpLink()
    settled = Settling(link, Compatibility(exact=False), offline_s=5.0)
    settled.connected()
    return settled


async def seconds(settled: Settling) -> float:
    began = now()
    await settled.wait()
    return now() - began


def test_the_wait_ends_when_the_gateways_own_info_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "SETTLE_S", 20.0)

    async def test() -> None:
        settled = connected()
        waiting = asyncio.ensure_future(seconds(settled))
        await asyncio.sleep(2 * QUIET_S)
        assert not waiting.done()
        settled.own_info_came()
        assert await waiting < 10.0

    run(test())


def test_topics_that_come_after_the_own_info_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker need not send the topics of different clients in any order."""
    monkeypatch.setattr(settling, "QUIET_S", 0.6)

    async def test() -> None:
        settled = connected()
        settled.own_info_came()
        waiting = asyncio.ensure_future(seconds(settled))
        await asyncio.sleep(0.2)
        settled.topic_came()
        came_at = now()
        await waiting
        assert now() - came_at >= 0.59

    run(test())


def test_without_its_own_info_the_wait_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker may refuse the gateway a subscription to its own topic."""
    monkeypatch.setattr(settling, "SETTLE_S", 0.05)

    async def test() -> None:
        assert 0.04 < await seconds(connected()) < 2.0

    run(test())


def test_a_flood_of_topics_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "BACKLOG_S", 0.1)

    async def test() -> None:
        settled = connected()
        waiting = asyncio.ensure_future(seconds(settled))
        while not waiting.done():
            settled.topic_came()
            await asyncio.sleep(QUIET_S / 2)
        assert await waiting < SETTLE_S + 2.0

    run(test())


def test_a_new_gateway_knows_the_devices_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "SETTLE_S", 20.0)

    async def test() -> None:
        rig = Rig()
        names = [f"device-{number}" for number in range(20)]
        for name in names:
            rig.device(name)
        async with rig.gateway(config(), serves=False) as gateway:
            await eventually(lambda: gateway.link.connected)
            began = now()
            await gateway.settled()
            assert now() - began < 10.0
            assert list(gateway.online()) == sorted(names)

    run(test())
