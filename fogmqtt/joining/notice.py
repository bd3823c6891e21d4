"""What a gateway announces of itself on the network, and the thread that keeps it up to date.

Most gateways have nothing to announce: zeroconf, which needs 24 MB, is loaded only for the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from fogmqtt.joining.names import at

log = logging.getLogger(__name__)

#: Seconds between two looks at what there is to announce.
_WATCH_S: Final = 10.0


#: Takes an announcement back.
Withdraw: TypeAlias = Callable[[], None]


class GatewayNotice(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway announces, or a board finds."""

    gateway: str
    prefix: str
    #: The broker's addresses and port.
    addresses: tuple[str, ...]
    port: int
    tls: bool = False
    #: The authority, where boards join by invitation; empty where everybody may come.
    pin: str = ""
    join_port: int = 0
    #: Boards may ask to join at this time.
    asks: bool = False

    @property
    def brokers(self) -> tuple[str, ...]:
        """The urls of the broker."""
        scheme = "mqtts" if self.tls else "mqtt"
        return tuple(f"{scheme}://{at(one, self.port)}" for one in self.addresses)

    @property
    def join_urls(self) -> tuple[str, ...]:
        """Where invited boards send their request."""
        return tuple(f"https://{at(one, self.join_port)}" for one in self.addresses)


class GatewayAnnouncer:
    """Keeps one announcement on the network up to date, in a thread, until `close`.

    `notice` returns what to announce now, or None. It may block for a moment. `announce` does it,
    and returns what takes it back.
    """

    def __init__(
        self,
        notice: Callable[[], GatewayNotice | None],
        announce: Callable[[GatewayNotice], Withdraw],
    ) -> None:
        self._notice = notice
        self._announce_it = announce
        self._announced: GatewayNotice | None = None
        self._take_back: Withdraw | None = None
        self._problem = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="announce", daemon=True)

    def start(self) -> None:
        """Announce from now on."""
        self._thread.start()

    def close(self) -> None:
        """Take the announcement back."""
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self._announce(self._notice())
                self._problem = ""
            except (OSError, ImportError) as problem:
                if (text := str(problem) or type(problem).__name__) != self._problem:
                    log.warning("this gateway cannot be announced by mDNS: %s", text)
                    self._problem = text
            self._closing.wait(_WATCH_S)
        self._withdraw()

    def _announce(self, notice: GatewayNotice | None) -> None:
        if notice == self._announced:
            return
        self._withdraw()
        if notice is None:
            return
        self._take_back = self._announce_it(notice)
        self._announced = notice
        where = ", ".join(notice.brokers)
        log.info("announced by mDNS as %s: boards find %s", notice.gateway, where)

    def _withdraw(self) -> None:
        self._announced = None
        if self._take_back is not None:
            self._take_back()
            self._take_back = None
