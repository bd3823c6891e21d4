"""Compares this machine with an emulated one of another processor: `python -m tests.arm`.

Debian for arm64 is built in a folder, which needs no root and is kept for the next time. There and
here, OpenCV examines its operators and computes a few thousand images of many widths. What differs
must be an ability that may differ, and fingerprints must tell it. On arm64, tiles must equal the
whole. An emulated device does real jobs of a gateway of this machine, which verifies them. At last
a bare emulated machine becomes a board by the line that `fog-gateway invite` prints.

Exit code 1: something differs that must not. Exit code 2: the system cannot be built.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import cv2
import msgspec

from fogmqtt.conformance.report import ConformanceReport
from tests.arm import work
from tests.arm.system import ROOT, ArmSystem, MissingError, build
from tests.fog import RealBroker, mosquitto, wait_for
from tests.joinable import JoinableFog
from tests.processes import Fog, Program, fog_at, photo

T = TypeVar("T")

FOLDER: Final = ROOT / ".arm"
MAY_DIFFER: Final = Path(__file__).with_name("may_differ.txt")
#: A Raspberry Pi 4.
_CPU: Final = "cortex-a72"
#: Processes that compute at the same time.
_PROCESSES: Final = 2
#: Pipelines of real jobs, all of which round alike on both processors.
_JOBS: Final = (
    "gray | gaussian ksize=15 | canny",
    "clahe | unsharp ksize=21",
    "gray | otsu | components",
)
#: What a gateway here must not send to the device.
_TOLD_APART: Final = "hsv/uint8/back"
#: Seconds until the emulated device is online, and until a job ends.
_PATIENCE_S: Final = 180.0
#: Seconds until join.sh has made an environment and joined: two minutes of an emulated processor.
_INSTALL_S: Final = 600.0


class DiffersError(Exception):
    """Something differs that must not; the text says what."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.arm")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the system is kept")
    folder = parser.parse_args(arguments).folder.absolute()
    began = time.monotonic()
    try:
        _require_mosquitto()
        system = build(folder)
        with _step("starting Python on the emulated processor"):
            _check_machine(system)
        _compare(system)
        with tempfile.TemporaryDirectory(prefix="arm-") as place:
            _run_jobs(system, Path(place))
        with tempfile.TemporaryDirectory(prefix="arm-") as place:
            _join(system, Path(place))
    except MissingError as problem:
        print(f"arm: {problem}", file=sys.stderr)
        return 2
    except DiffersError as problem:
        print(f"arm: {problem}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as problem:
        print(f"arm: {problem}\n{problem.stderr.decode(errors='replace')}", file=sys.stderr)
        return 1
    print(f"arm64 and this machine agree ({time.monotonic() - began:.0f} s)")
    return 0


def _require_mosquitto() -> None:
    if mosquitto() is None:
        raise MissingError("Mosquitto is not installed: apt install mosquitto")


@contextmanager
def _step(what: str) -> Iterator[None]:
    print(f"{what} …", flush=True)
    began = time.monotonic()
    yield
    print(f"  {time.monotonic() - began:.0f} s", flush=True)


def _check_machine(system: ArmSystem) -> None:
    code = "import platform, cv2; print(platform.machine(), cv2.__version__)"
    machine, opencv = system.run(_CPU, "-c", code).decode().split()
    if machine != "aarch64":
        raise MissingError(f"the emulated machine is {machine}, not aarch64")
    print(f"  {machine}, OpenCV {opencv}")


def _compare(system: ArmSystem) -> None:
    """Compare conformance reports and digests; run the law. Raises DiffersError."""
    with _step("examining the operators, there and here"):
        there = _on_arm(system, ConformanceReport, "examine")
        differing = _differing_abilities(work.examine(), there)
    with _step(f"computing images of {len(work.WIDTHS)} widths, there and here"):
        with ThreadPoolExecutor() as pool:
            digests = pool.submit(_on_arm, system, dict[str, str], "sweep")
            here = work.sweep()
        _compare_digests(here, digests.result(), differing)
    with _step("comparing tiles with the whole, there"), ThreadPoolExecutor() as pool:
        parts = [
            pool.submit(_on_arm, system, tuple[int, list[str]], "law", str(part), str(_PROCESSES))
            for part in range(_PROCESSES)
        ]
        results = [part.result() for part in parts]
        failures = [failure for _, part in results for failure in part]
        if failures:
            raise DiffersError("on arm64, tiles differ from the whole:\n" + "\n".join(failures))
        print(f"  {sum(count for count, _ in results)} plans, all equal")


def _on_arm(system: ArmSystem, kind: type[T], *arguments: str) -> T:
    """Return what the module `work` says on the emulated machine."""
    return msgspec.json.decode(system.run(_CPU, "-m", "tests.arm.work", *arguments), type=kind)


def _differing_abilities(here: ConformanceReport, there: ConformanceReport) -> frozenset[str]:
    """Return the abilities with another fingerprint; raise DiffersError for one that must not."""
    problems = [*here.problems, *there.problems]
    if problems:
        raise DiffersError(f"the operators could not be examined: {'; '.join(problems)}")
    ours, theirs = here.fingerprints, there.fingerprints
    differing = frozenset(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )
    print(f"  {len(ours) - len(differing)} of {len(ours)} fingerprints are equal")
    may = frozenset(
        line for line in MAY_DIFFER.read_text().splitlines() if not line.startswith("#")
    )
    if differing - may:
        raise DiffersError(
            f"these abilities round differently on arm64 and are not in {MAY_DIFFER.name}: "
            f"{', '.join(sorted(differing - may))}"
        )
    return differing


def _compare_digests(
    here: dict[str, str], there: dict[str, str], differing: frozenset[str]
) -> None:
    """Raise DiffersError if a result differs whose fingerprints are equal."""
    if here.keys() != there.keys():
        raise DiffersError(f"other operators there: {sorted(here.keys() ^ there.keys())[:5]}")
    others = [case for case in here if here[case] != there[case]]
    unseen = [case for case in others if not differing & set(case.partition(":")[0].split())]
    print(f"  {len(here) - len(others)} of {len(here)} results are equal")
    if unseen:
        raise DiffersError(
            f"{len(unseen)} results differ although the fingerprints are equal:\n"
            + "\n".join(unseen[:20])
        )


def _run_jobs(system: ArmSystem, place: Path) -> None:
    """Let an emulated device do the tiles of real jobs, and verify them. Raises DiffersError."""
    (place / "broker").mkdir()
    broker = RealBroker(place / "broker")
    broker.start()
    try:
        with fog_at(place, broker) as fog:
            fog.save("photo.png", photo(600, 817))
            with _step("starting an emulated device"):
                device = _start_device(system, fog)
                wait_for(lambda: _is_examined(fog, device), within=_PATIENCE_S, what="the device")
            for text in _JOBS:
                with _step(f"{text}, on the emulated device"):
                    _run_job(fog, text)
            _check_refused(fog)
    finally:
        broker.kill()


def _join(system: ArmSystem, place: Path) -> None:
    """Make the emulated machine a board by the printed line. Raises DiffersError."""
    gateway, home = JoinableFog(place), place / "pi"
    home.mkdir()
    # A board's own folders, so that root does not use those of this machine. What pip needs is
    # unpacked already.
    environment = system.environment(
        _CPU,
        PATH=f"{system.python.parent}:{os.defpath}",
        PYTHONPATH=str(system.folder / "site"),
        HOME=str(home),
        XDG_CONFIG_HOME=str(home),
        PIP_NO_INDEX="1",
        PIP_NO_COMPILE="1",
        PYTHONDONTWRITEBYTECODE="",
        FOGMQTT_DEVICE__WORKERS="2",
    )
    try:
        gateway.init()
        text = gateway.config.read_text("utf-8")
        gateway.config.write_text(text.replace("gateway:\n", "gateway:\n  local: never\n"), "utf-8")
        gateway.start_broker()
        serving = gateway.serve()
        said = gateway.gateway("invite", "pi", "-o", str(place / "pi.fog")).stdout
        (line,) = [one.strip() for one in said.splitlines() if one.strip().startswith("curl ")]
        line = line.replace("sudo sh", "sh")
        serving.says("boards can join at port")
        with _step("installing and joining by the line that invite printed, there"):
            installed = subprocess.run(
                ["sh", "-c", f"{line} --prefix {home}/fogmqtt"],
                cwd=home,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_INSTALL_S,
                check=False,
            )
            if installed.returncode:
                raise DiffersError(f"join.sh failed: {installed.stdout}{installed.stderr}")
        with _step("gray | canny by TLS, on the board that joined"):
            gateway.programs.append(_start_board(home, environment))
            serving.says("pi is online", within=_PATIENCE_S)
            _run_job_on_board(gateway)
    finally:
        gateway.close()


def _start_board(home: Path, environment: dict[str, str]) -> Program:
    log = home / "pi.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [home / "fogmqtt/start"],
            cwd=home,
            env=environment,
            stdout=out,
            stderr=out,
        )
    return Program(process, log)


def _run_job_on_board(gateway: JoinableFog) -> None:
    cv2.imwrite(str(gateway.folder / "photo.png"), photo(600, 817))
    report = gateway.folder / "report.json"
    gateway.gateway(
        *("run", "photo.png", "-o", "edges.png", "--pipeline", "gray | canny", "--verify"),
        *("--tiles", "grid 3x4", "--report", str(report), "--timeout", f"{_PATIENCE_S:g}"),
        within=_PATIENCE_S + 60,
    )
    told = json.loads(report.read_text())
    if told["differ"] != 0 or list(told["devices"]) != ["pi"]:
        raise DiffersError(f"gray | canny: {told['differ']} differ, tiles by {told['devices']}")


def _start_device(system: ArmSystem, fog: Fog) -> Program:
    log = fog.folder / "pi.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [system.python, "-m", "fogmqtt.cli.device", "--id", "pi", "--broker", fog.broker.url],
            cwd=fog.folder,
            env=system.environment(_CPU, FOGMQTT_DEVICE__WORKERS="2"),
            stdout=out,
            stderr=out,
        )
    program = Program(process, log)
    fog.programs.append(program)
    program.says("pi is online", within=_PATIENCE_S)
    return program


def _is_examined(fog: Fog, device: Program) -> bool:
    if not device.running:
        raise DiffersError(f"the emulated device ended: {device.said[-2000:]}")
    listed = json.loads(fog.command("devices", "--json").stdout)
    return "pi" in listed and not listed["pi"].get("conformance_running")


def _run_job(fog: Fog, text: str) -> None:
    suffix = ".json" if text.endswith("components") else ".png"
    ran = fog.run(
        *("photo.png", "-o", f"result{suffix}", "--pipeline", text, "--verify"),
        *("--tiles", "grid 3x4", "--timeout", f"{_PATIENCE_S:g}"),
    )
    done, differ = ran.report["devices"], ran.report["differ"]
    if differ != 0 or list(done) != ["pi"] or done["pi"]["tiles"] < 12:
        raise DiffersError(f"{text}: {differ} differ, tiles by {done}")


def _check_refused(fog: Fog) -> None:
    """Raise DiffersError unless the device is told apart for what it rounds differently."""
    differs = json.loads(fog.command("devices", "--json").stdout)["pi"]["differs"]
    if _TOLD_APART not in differs:
        raise DiffersError(
            f"the gateway uses the device for {_TOLD_APART}; it differs in {differs}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
