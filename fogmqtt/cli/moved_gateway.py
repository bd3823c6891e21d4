"""Finds the gateway of a board again whose address has changed while the board's agent runs."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

from fogmqtt.cli.find_gateway import find_moved
from fogmqtt.errors import FogError
from fogmqtt.joining.identity import folders, load_identity
from fogmqtt.transport.base import Deliver, Disconnected, Refused

log = logging.getLogger(__name__)

#: Seconds without a broker before the first look by mDNS, and between two.
LOOK_S: Final = 30.0


class GatewayWatch:
    """Looks for the gateway while none of its brokers can be reached."""

    def __init__(self, device: str) -> None:
        self._device = device
        #: What ends the agent, which then begins anew.
        self.stop: Callable[[], None] = lambda: None
        self.has_moved = False
        #: When the last connection ended, or the last look was.
        self._since = time.monotonic()

    def observing(self, deliver: Deliver) -> Deliver:
        """Return what delivers a transport's events, and hears them before."""

        def observe(event: object) -> None:
            match event:
                case Refused():
                    self._refused()
                case Disconnected():
                    self._since = time.monotonic()
            deliver(event)

        return observe

    def _refused(self) -> None:
        if time.monotonic() - self._since < LOOK_S:
            return
        self._since = time.monotonic()
        threading.Thread(target=self._look, name="moved gateway", daemon=True).start()

    def _look(self) -> None:
        try:
            found = load_identity(self._device, folders(os.environ))
            if found is None or find_moved(*found) is None:
                return
        except FogError as problem:
            log.warning("the gateway is not looked for: %s", problem)
            return
        self.has_moved = True
        self.stop()


def begin_anew() -> NoReturn:
    """Begin this program anew, under the same process id."""
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
