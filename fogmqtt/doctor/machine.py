"""This machine: its disk, clock and ports, and what a Raspberry Pi says of its power."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from fogmqtt.doctor.finding import Finding, fault, ok, warning
from fogmqtt.transport.link import TLS_PORT

#: Bits of the firmware's word: now and since the start (raspberrypi.com, vcgencmd get_throttled).
_POWER: Final = (
    (0x1, "fault", "the voltage is too low now", "use a power supply of 5 V and 3 A or more"),
    (0x4, "warning", "the processor is throttled now", "cool the board, or check its power"),
    (0x8, "warning", "the processor is at its temperature limit now", "cool the board"),
    (0x10000, "warning", "the voltage was too low since the start", "use a better power supply"),
    (0x40000, "warning", "the processor was throttled since the start", "cool the board"),
)
_PLATFORM: Final = Path("/sys/devices/platform")
#: Boards differ in the name: soc/soc:firmware, or soc@107c000000/soc@107c000000:firmware.
_THROTTLED: Final = "soc*/soc*:firmware/get_throttled"
_TEMPERATURE: Final = Path("/sys/class/thermal/thermal_zone0/temp")
#: °C from which a Pi lowers its clock.
_HOT: Final = 80.0
_LITTLE_SHARE: Final = 0.1
_LITTLE_BYTES: Final = 200_000_000

Read = Callable[[Path], str]


def read_text(path: Path) -> str:
    """Return a small file of the kernel, empty where there is none."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def read_table(name: str) -> str:
    """Return a table of the kernel's connections."""
    return read_text(Path(name))


def disk(folders: Iterable[str]) -> Iterator[Finding]:
    """Judge the free room of each folder's disk."""
    devices: set[int] = set()
    for name in filter(None, folders):
        folder = Path(name).absolute()
        while not folder.exists():
            folder = folder.parent
        device = folder.stat().st_dev
        if device not in devices:
            devices.add(device)
            usage = shutil.disk_usage(folder)
            yield free_room(str(folder), usage.free, usage.total)


def free_room(folder: str, free: int, total: int) -> Finding:
    megabytes = f"{free / 1e6:,.0f} MB free of {total / 1e6:,.0f}"
    if free < _LITTLE_BYTES:
        return fault(
            "disk", f"the disk of {folder} is nearly full: {megabytes}", "delete files, or move it"
        )
    if free < _LITTLE_SHARE * total:
        return warning(
            "disk",
            f"the disk of {folder} has {megabytes}",
            "delete files, or let the gateway do it: gateway.outbox_keep_s, min_free_bytes",
        )
    return ok("disk", f"the disk of {folder} has {megabytes}")


def clock(now: float | None = None) -> Finding:
    """Judge the clock by the age of this program's files: a board without a battery starts then."""
    now = time.time() if now is None else now
    made = Path(__file__).stat().st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < made - 60:
        return fault(
            "clock",
            f"the clock says {shown}, which is before this program was installed: certificates "
            "seem to be not yet valid",
            "set it (timedatectl set-ntp true), or wait until the network sets it",
        )
    return ok("clock", f"the clock says {shown}")


def power(read: Read = read_text, platform: Path = _PLATFORM) -> Iterator[Finding]:
    """Judge what the firmware of a Raspberry Pi says; nothing on other machines."""
    bits = next(map(_word, map(read, platform.glob(_THROTTLED))), None)
    if bits is not None:
        found = [one for one in _POWER if bits & one[0]]
        for _, level, sentence, fix in found:
            yield (fault if level == "fault" else warning)("power", sentence, fix)
        if not found:
            yield ok("power", "neither low voltage nor throttling since the start")
    temperature = read(_TEMPERATURE)
    if temperature.lstrip("-").isdigit() and int(temperature) / 1000 >= _HOT:
        yield warning(
            "temperature",
            f"the processor has {int(temperature) / 1000:.0f} °C, and lowers its clock",
            "cool the board: a heat sink or a fan",
        )


def _word(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def page(host: str, number: int, gateway: str) -> Finding:
    """Judge the port of the page: it is free, or the page of this gateway has it."""
    held = port("dashboard.listen", host, number)
    if held.level == "ok":
        return held
    answer = _page_says(host, number)
    if gateway in answer.split():
        return ok("port", f"dashboard.listen: the page of {gateway} is at {host}:{number}")
    return held


def _page_says(host: str, number: int) -> str:
    """Return what a page of fogmqtt says of itself, empty if there is none."""
    from http.client import HTTPConnection, HTTPException

    client = HTTPConnection(host, number, timeout=2)  # to 0.0.0.0 is to this machine
    try:
        client.request("GET", "/healthz")
        response = client.getresponse()
        if not response.getheader("fogmqtt-version"):
            return ""
        return response.read(1000).decode("utf-8", "replace").replace('"', " ")
    except (OSError, HTTPException):
        return ""
    finally:
        client.close()


def port(name: str, host: str, number: int) -> Finding:
    """Judge whether a port that we listen at is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, number))
        except OSError as problem:
            return warning(
                "port",
                f"{name}: {host}:{number} cannot be used: {problem.strerror}",
                f"set {name} to another port, or stop the program that has it",
            )
    return ok("port", f"{name}: {host}:{number} is free")


def listener(port_number: int, tables: Iterable[str]) -> str:
    """Return where this machine listens at a port: all, loopback or nowhere.

    `tables` are the texts of /proc/net/tcp and tcp6.
    """
    found = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            local, state = (line.split() + [""] * 4)[1:4:2]
            address, _, hexed = local.partition(":")
            if state == "0A" and hexed and int(hexed, 16) == port_number:
                found.add(_is_loopback(address))
    if not found:
        return "nowhere"
    return "loopback" if found == {True} else "all"


def _is_loopback(address: str) -> bool:
    return address.endswith("7F") if len(address) == 8 else address.endswith("01000000")


def reach_of_boards(port_number: int, tables: Collection[str]) -> Finding | None:
    """Judge whether boards reach the broker of `fog-gateway init`; the tables as for `listener`."""
    if listener(port_number, tables) != "loopback":
        return None
    return warning(
        "broker's network",
        f"boards reach the broker at port {port_number}, which listens on loopback only, so those "
        "on other machines find nothing",
        "run fog-gateway init again, with --address and the address of this machine",
    )


def reach(port_number: int, tables: Collection[str]) -> Finding | None:
    """Judge whether other machines reach a broker of this machine; the tables as for `listener`.

    After `fog-gateway init` they come by TLS, and the other port is for this machine.
    """
    if listener(port_number, tables) != "loopback" or listener(TLS_PORT, tables) == "all":
        return None
    return warning(
        "broker's network",
        f"the broker at port {port_number} of this machine listens on loopback only, so devices on "
        "other machines find nothing",
        "sudo cp broker/open.conf /etc/mosquitto/conf.d/ && sudo systemctl restart mosquitto, or "
        "fog-gateway init for passwords and certificates",
    )
