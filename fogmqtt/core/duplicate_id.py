"""Two processes under one id: which of them must leave.

The broker admits one client per id, so the two disconnect each other, and each knows the other only
by the info that it published. The uptime in that info is as old as its publication, so each of the
two judges itself a little older than it is: they never both leave by age. Where both stay by age,
because they started at the same moment, they meet again and again, and then the boot ids decide.
"""

from __future__ import annotations

from collections import OrderedDict

#: From this many meetings with the same duplicate on, age no longer decides. The older process
#: usually meets the younger one twice before that one has read that it must leave.
_MAX_MEETINGS_BY_AGE = 4
#: Duplicates that are remembered.
_REMEMBERED = 16


class DuplicateIdCheck:
    """Judges every info that is published under our own id. `boot` is our own boot id."""

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._announced = False
        self._meetings: OrderedDict[str, int] = OrderedDict()

    def announced(self) -> None:
        """Record that our own info came back from the broker: another info is newer than ours.

        Before that, the broker may still deliver the retained info of our own previous process.
        """
        self._announced = True

    def is_rival(self, boot: str) -> bool:
        """Whether another live process published an info with this boot id.

        An info from before our first one may be our own previous process's.
        """
        return self._announced and boot != self._boot

    def must_leave(self, boot: str, uptime_s: float, own_uptime_s: float) -> bool:
        """Whether an info with `boot` and `uptime_s` means that this process must leave.

        The process with the longer uptime stays; if that does not decide, the one with the smaller
        boot id. False if the info is our own. After a False for a duplicate's info, publish your
        own again.
        """
        if not self.is_rival(boot):
            return False
        meeting = self._count(boot)
        if meeting >= _MAX_MEETINGS_BY_AGE or (meeting == 1 and uptime_s == own_uptime_s):
            return self._boot > boot
        return meeting == 1 and uptime_s > own_uptime_s

    def _count(self, boot: str) -> int:
        meeting = self._meetings.pop(boot, 0) + 1
        self._meetings[boot] = meeting
        if len(self._meetings) > _REMEMBERED:
            self._meetings.popitem(last=False)
        return meeting
