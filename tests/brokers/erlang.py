"""What brokers in Erlang need: a port mapper of their own, and calls to a running node."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.brokers.broker import BrokerProblem, Process, program
from tests.fog import free_port


class Epmd:
    """A port mapper on loopback. Erlang would start one on all interfaces that stays for ever."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._process = Process(
            [program("epmd"), "-port", str(self.port), "-address", "127.0.0.1"],
            folder,
            {"ERL_EPMD_RELAXED_COMMAND_CHECK": "1"},
        )

    @property
    def environment(self) -> dict[str, str]:
        """What each node needs to find it."""
        return {"ERL_EPMD_PORT": str(self.port), "ERL_EPMD_ADDRESS": "127.0.0.1"}

    def start(self) -> None:
        self._process.start()
        for _ in range(100):
            if self._names().returncode == 0:
                return
            time.sleep(0.05)
        raise BrokerProblem(f"epmd did not start: {self._process.said()}")

    def stop(self) -> None:
        self._process.end(signal.SIGTERM)

    def _names(self) -> subprocess.CompletedProcess[bytes]:
        command = [program("epmd"), "-port", str(self.port), "-names"]
        return subprocess.run(command, capture_output=True, timeout=10, check=False)


def call(epmd: Epmd, node: str, module: str, function: str, arguments: str) -> str:
    """Call a function on a running node with a list of arguments; returns what it returned."""
    expression = f"rpc:call({node!r}, {module}, {function}, {arguments})"
    done = subprocess.run(
        [
            *("erl", "-noinput", "-hidden", "-sname", f"ctl{os.getpid()}@localhost"),
            *("-setcookie", "fog", "-eval", f'io:format("~p", [{expression}]), halt().'),
        ],
        env=os.environ | epmd.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr
