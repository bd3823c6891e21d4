"""Whether the agent of a board runs on this machine and has its broker.

A broker that lets one program in for each user ends the agent's connection if a doctor comes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PROGRAMS: Final = {"fog-device", "fogmqtt.cli.device"}
#: Commands of `fog-device` that are no agents.
_COMMANDS: Final = {"doctor", "join", "forget", "service"}
_ESTABLISHED: Final = "01"


def has_broker(device: str, ports: Collection[int], proc: Path = _PROC) -> bool:
    """Return whether an agent of this id has a connection to one of these ports, from here.

    One in a container or another network namespace has its own connections, and is not meant.
    """
    ours = _connections(proc / "self", ports)
    return any(
        _is_agent(_arguments(process), device) and ours & _connections(process, ports)
        for process in proc.glob("[0-9]*")
    )


def _arguments(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text("utf-8", "replace").split("\0")
    except OSError:
        return []  # it has ended


def _is_agent(arguments: Sequence[str], device: str) -> bool:
    """Whether a process is an agent; one that does not name its id may be of this one."""
    names = [Path(one).name for one in arguments[:6]]
    if not _PROGRAMS.intersection(names) or _COMMANDS.intersection(arguments):
        return False
    return device in (named := list(_ids(arguments))) or not named


def _ids(arguments: Sequence[str]) -> Iterator[str]:
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option == "--id":
            yield value
        elif option.startswith("--id="):
            yield option.removeprefix("--id=")


def _connections(process: Path, ports: Collection[int]) -> set[tuple[str, str]]:
    """Return both ends of the connections to these ports in the network of a process."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (process / "net" / table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, state = line.split()[:4]
            if state == _ESTABLISHED and int(remote.rpartition(":")[2], 16) in ports:
                found.add((local, remote))
    return found
