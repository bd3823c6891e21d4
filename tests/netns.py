"""Machines with network stacks of their own: network namespaces of Linux around a bridge.

A relay on loopback cannot show what TCP does when a cable is pulled or an address changes, since
loopback delivers every byte. It needs root and `ip`.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_SUBNET = "10.77.0"


class Network:
    """A switch, and machines at it; each has one address of 10.77.0.0/24."""

    def __init__(self) -> None:
        self._mark = f"fog{secrets.token_hex(3)}"
        self._hosts: dict[str, int] = {}
        _ip("netns", "add", self._switch)
        self._in(self._switch, "link", "add", "name", "bridge0", "type", "bridge")
        self._in(self._switch, "link", "set", "bridge0", "up")

    def add(self, *hosts: str) -> None:
        """Add machines."""
        for host in hosts:
            number = self._hosts[host] = len(self._hosts) + 1
            space, port = self._space(host), f"p{number}"
            _ip("netns", "add", space)
            peer = ("type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "add", port, "netns", self._switch, *peer)
            self._in(space, "link", "set", "lo", "up")
            self._in(space, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            self._in(space, "link", "set", "eth0", "up")
            self._in(self._switch, "link", "set", port, "up")
            self.plug(host)

    def address(self, host: str) -> str:
        return f"{_SUBNET}.{self._hosts[host]}"

    def plug(self, *hosts: str) -> None:
        """Connect machines to the switch."""
        for host in hosts:
            self._in(self._switch, "link", "set", f"p{self._hosts[host]}", "master", "bridge0")

    def unplug(self, *hosts: str) -> None:
        """Let every packet from and to these machines vanish; they are told nothing."""
        for host in hosts:
            self._in(self._switch, "link", "set", f"p{self._hosts[host]}", "nomaster")

    def move(self, host: str) -> None:
        """Give a machine another address, as a router does that starts again."""
        space, old = self._space(host), self.address(host)
        self._in(space, "addr", "del", f"{old}/24", "dev", "eth0")
        self._hosts[host] += 100
        self._in(space, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")

    def limit(self, host: str, rate: str) -> None:
        """Limit what a machine sends and receives, such as to 1mbit."""
        shape = ("tbf", "rate", rate, "burst", "16k", "latency", "400ms")
        tc = ("tc", "qdisc", "replace", "dev")
        for space, port in ((self._space(host), "eth0"), (self._switch, f"p{self._hosts[host]}")):
            _run("ip", "netns", "exec", space, *tc, port, "root", *shape)

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Let sockets, threads and processes of this thread begin at a machine."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as home:
            with Path(f"/run/netns/{self._space(host)}").open() as space:
                _enter(libc, space.fileno())
            try:
                yield
            finally:
                _enter(libc, home.fileno())

    def close(self) -> None:
        for host in self._hosts:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", self._space(host))
        _ip("netns", "del", self._switch)

    @property
    def _switch(self) -> str:
        return self._space("switch")

    def _space(self, host: str) -> str:
        return f"{self._mark}-{host}"

    def _in(self, space: str, *command: str) -> None:
        _ip("-n", space, *command)


@contextmanager
def network(*hosts: str) -> Iterator[Network]:
    """A network with these machines. Skips the test where a user may not make one."""
    if os.geteuid() != 0 or not hasattr(os, "sched_getaffinity"):
        pytest.skip("network namespaces need root on Linux: run the test as root")
    made = Network()
    try:
        made.add(*hosts)
        yield made
    finally:
        made.close()


def _enter(libc: ctypes.CDLL, space: int) -> None:
    if libc.setns(space, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
