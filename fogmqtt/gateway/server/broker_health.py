"""Messages that the broker dropped: it tells nobody but whoever reads its `$SYS` counter."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from fogmqtt.gateway.jobs.report import Report
from fogmqtt.gateway.server.broker_limits import REMEDY

log = logging.getLogger(__name__)

#: Mosquitto's counter of messages dropped on their way to clients, said every `sys_interval`
#: (10 s): a job that is shorter may end before its drops are known.
DROPPED = "$SYS/broker/publish/messages/dropped"


class DropCounter:
    """Follows the counter. It counts the messages of all of the broker's clients."""

    def __init__(self) -> None:
        self._last: int | None = None

    def unknown(self, reason: str) -> None:
        """The broker does not tell the counter."""
        log.info("messages that the broker drops stay unknown: %s", reason)

    def heard(self, payload: bytes, reports: Iterable[Report]) -> None:
        """The counter's newest value; what it rose by is told, and noted in these reports."""
        if not (payload.isdigit() and len(payload) <= 20):
            log.debug("%s: %r is no count", DROPPED, payload[:40])
            return
        count = int(payload)
        more = 0 if self._last is None else count - self._last
        self._last = count  # lower than before: the broker was started anew
        if more <= 0:
            return
        log.warning("the broker dropped %d messages to slow clients: %s", more, REMEDY)
        for report in reports:
            report.dropped += more
