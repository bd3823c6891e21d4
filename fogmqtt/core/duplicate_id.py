"""Decides which of two processes with the same id exits.

A broker admits one client per id, so two processes with one id disconnect each other again and
again. Each learns of the other only from the retained info that the other left at the broker. The
uptime in that info is as old as the info, so each process takes itself for a little older than it
is: by uptime alone, both never exit. If both stay by uptime (they were started at the same moment,
for example boards on one power switch), they meet repeatedly, and then the boot ids decide.

Whoever may write to the topic can forge an info. So an info alone proves nothing: it is judged once
after each loss of the link, since the broker disconnects a process when another one comes with its
client id.
"""

from __future__ import annotations

from collections import OrderedDict

#: From this encounter with the same process on, uptime no longer decides. The older process
#: usually meets the younger one twice before that one has read that it must exit.
_BOOT_ID_DECIDES_AT = 4
#: The maximum number of other processes that are remembered.
_MAX_REMEMBERED = 16


class DuplicateIdCheck:
    """Judges each info that arrives under the own id. `boot` is the own boot id."""

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._is_own_info_seen = False
        #: The link was lost since the last judgement, so another process may have taken the id.
        self._was_link_lost = False
        self._encounters: OrderedDict[str, int] = OrderedDict()

    def own_info_seen(self) -> None:
        """Record that the own info came back from the broker; other infos are newer from now on.

        Before that, the broker may still deliver the retained info of a previous run of this
        process. It does so after it has confirmed the first connection.
        """
        self._is_own_info_seen = True

    def link_lost(self) -> None:
        """Record that the broker ended the connection, or that it broke."""
        self._was_link_lost = self._is_own_info_seen

    def is_duplicate(self, boot: str) -> bool:
        """Return whether an info with this boot id comes from another running process.

        False before `own_info_seen`: the info may be left from a previous run of this process.
        """
        return self._is_own_info_seen and boot != self._boot

    def must_exit(self, boot: str, uptime_s: float, own_uptime_s: float) -> bool:
        """Return whether an info with `boot` and `uptime_s` means that this process must exit.

        The process with the longer uptime stays. If uptime does not decide, the process with the
        smaller boot id stays. If the result is False and `is_duplicate` is True, the caller must
        publish its own info again, so that the other process reads it.
        """
        if not self.is_duplicate(boot) or not self._was_link_lost:
            return False
        self._was_link_lost = False
        encounter = self._count(boot)
        if encounter >= _BOOT_ID_DECIDES_AT or (encounter == 1 and uptime_s == own_uptime_s):
            return self._boot > boot
        return encounter == 1 and uptime_s > own_uptime_s

    def _count(self, boot: str) -> int:
        encounter = self._encounters.pop(boot, 0) + 1
        self._encounters[boot] = encounter
        if len(self._encounters) > _MAX_REMEMBERED:
            self._encounters.popitem(last=False)
        return encounter
