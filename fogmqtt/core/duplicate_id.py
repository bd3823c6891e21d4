"""Two processes under one id: which of them leaves.

The broker lets only one client in under an id, so the two throw each other out and each hears
of the other only through the info that the other left behind. What that says of its uptime is
as old as the rival's last word, so each of the two takes itself for a little older than it is:
never do both leave by age. Where both stay by age (they were started at the same moment, as
boards on one switch are) they meet again and again, and then the boot ids decide.
"""

from __future__ import annotations

from collections import OrderedDict

#: Meetings with the same rival from which on age no longer decides. The elder of two usually
#: meets the younger twice before that one has read that it must leave.
_PATIENCE = 4
#: Rivals that are remembered.
_REMEMBERED = 16


class DuplicateIdCheck:
    """Judges every info that is read under our own id. `boot` is our own boot id."""

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._announced = False
        self._meetings: OrderedDict[str, int] = OrderedDict()

    def announced(self) -> None:
        """Our own info came back from the broker: from now on another's is younger than ours.

        Not before: on our first connection the broker still hands us what our previous life
        left behind, and does so after it has told us that we are connected.
        """
        self._announced = True

    def is_rival(self, boot: str) -> bool:
        """Whether an info of this boot id was said by another that lives.

        One that lay there before our first may be our own previous life's.
        """
        return self._announced and boot != self._boot

    def must_leave(self, boot: str, uptime_s: float, own_uptime_s: float) -> bool:
        """Whether an info that says `boot` and `uptime_s` means that we must go.

        The one that has been up for longer stays; where that does not settle it, the smaller
        boot id. False where it is no rival's; after a False for a rival's, say your own anew.
        """
        if not self.is_rival(boot):
            return False
        meeting = self._count(boot)
        if meeting >= _PATIENCE or (meeting == 1 and uptime_s == own_uptime_s):
            return self._boot > boot
        return meeting == 1 and uptime_s > own_uptime_s

    def _count(self, boot: str) -> int:
        meeting = self._meetings.pop(boot, 0) + 1
        self._meetings[boot] = meeting
        if len(self._meetings) > _REMEMBERED:
            self._meetings.popitem(last=False)
        return meeting
