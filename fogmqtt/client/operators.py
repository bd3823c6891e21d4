"""The plug-ins and model files that the fogs of this process share.

Python has one list of loaded modules, and worker processes inherit one environment. So fogs that
are open at the same time must agree.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping

from fogmqtt.config import GatewayConfig
from fogmqtt.config.settings import PREFIX
from fogmqtt.errors import UsageError
from fogmqtt.setup.operators import use_operators

_MODELS = f"{PREFIX}MODELS"


class SharedOperators:
    """Counts the fogs that use a set of plug-ins and a model folder. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        #: One for each fog that is closed and not yet counted.
        self._left: deque[None] = deque()
        self._used: tuple[str, tuple[str, ...]] = "", ()
        #: What the program's environment said before.
        self._own: str | None = None

    def environment(self) -> Mapping[str, str]:
        """Return the environment as the program set it, for loading a configuration."""
        with self._lock:
            self._count_left()
            environ = dict(os.environ)
            if self._users:
                environ.pop(_MODELS, None)
                if self._own is not None:
                    environ[_MODELS] = self._own
            return environ

    def take(self, config: GatewayConfig) -> None:
        """Use the operators of a configuration. Raises UsageError if an open fog has others."""
        wanted = config.models, config.plugins
        with self._lock:
            self._count_left()
            if self._users and wanted != self._used:
                raise UsageError(
                    "a fog of this process is open with other plug-ins or another model folder "
                    f"(plugins {list(self._used[1])}, models {self._used[0]!r}; wanted are "
                    f"{list(config.plugins)} and {config.models!r}); close it first, or use "
                    "another process"
                )
            if not self._users:
                self._own = os.environ.get(_MODELS)
                try:
                    use_operators(config)
                except BaseException:
                    self._restore()
                    raise
                self._used = wanted
            self._users += 1

    def give_back(self) -> None:
        """Use them no longer. It may interrupt the other methods, as the garbage collector does."""
        self._left.append(None)
        if self._lock.acquire(blocking=False):
            try:
                self._count_left()
            finally:
                self._lock.release()

    def reset(self) -> None:
        """Forget the fogs of the process from which this one was forked."""
        if self._users:
            self._restore()
        self._lock, self._users = threading.Lock(), 0
        self._left.clear()

    def _count_left(self) -> None:
        while self._left:
            self._left.popleft()
            self._users -= 1
            if not self._users:
                self._restore()

    def _restore(self) -> None:
        if self._own is None:
            os.environ.pop(_MODELS, None)
        else:
            os.environ[_MODELS] = self._own


shared = SharedOperators()
os.register_at_fork(after_in_child=shared.reset)
