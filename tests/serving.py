"""A serving gateway in the test's own process, and what a client of it does."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, Self

import cv2

from fogmqtt.config import GatewayConfig
from fogmqtt.config import GatewaySettings as Settings
from fogmqtt.config.schema import Mode
from fogmqtt.gateway.server.server import Server
from fogmqtt.transport.base import Deliver, Receipt, Received, Will
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from tests.fog import Inbox, wait_for
from tests.processes import photo

PICTURE = cv2.imencode(".png", photo(60, 80))[1].tobytes()


class Serving:
    """A serving gateway on its own cores, and a client."""

    def __init__(
        self, spool: str, local: Mode = "always", *, inbox: str = "", outbox: str = "", **more: Any
    ) -> None:
        settings = Settings(local=local, local_after=0.0, inbox=inbox, outbox=outbox, spool=spool)
        self.broker = MemoryBroker()
        self.heard = Inbox()
        self.client = MemoryTransport(self.broker, "client", self.heard.put)
        self.client.subscribe("fog/v1/replies/+/status")
        self.client.start()
        self.config = GatewayConfig(gateway=settings, exact=False, **more)
        self.started = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.thread.start()
        assert self.started.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    async def _serve(self) -> None:
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        self.server = Server(self.config, self._connect)
        serving = self.loop.create_task(self.server.run())
        await self.server.gateway.link.up()
        self.started.set()
        await self.stopping.wait()
        serving.cancel()
        await asyncio.wait([serving])

    def _connect(self, deliver: Deliver, will: Will) -> MemoryTransport:
        self.deliver = deliver
        self.transport = MemoryTransport(self.broker, "mariem", deliver, will=will)
        return self.transport

    def submit(self, mid: int, pipeline: str = "edges", *, again: bool = False) -> None:
        topic = f"fog/v1/submit/{pipeline}/me"
        self.deliver(Received(topic, PICTURE, receipt=Receipt(1, mid, again)))

    def acknowledged(self, count: int) -> list[int]:
        """The messages that the broker need not keep, once they are so many."""
        wait_for(
            lambda: len(self.transport.acknowledged) >= count, what="acknowledgements", within=60
        )
        return [receipt.packet_id for receipt in self.transport.acknowledged]

    def end(self) -> str:
        """How the next job to end did."""
        while True:
            state = json.loads(self.heard.take(Received, within=60).payload)["state"]
            if state in ("done", "failed"):
                return str(state)

    @property
    def idle(self) -> bool:
        """Whether every job has ended."""
        return not self.server.gateway.jobs()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(30)
        assert not self.thread.is_alive()
