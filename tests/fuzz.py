"""Malformed messages by the hundred thousand over a real broker, and damaged images by the ten.

Nobody may crash, hang or grow. Run: python -m tests.fuzz [--messages 100000] [--images 10000]
[--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import msgspec
import numpy as np
import psutil

from fogmqtt.errors import ImageError
from fogmqtt.images import reader
from fogmqtt.wire.messages import (
    Accepted,
    Decoder,
    Failure,
    FromDevice,
    Rejected,
    Result,
    encode,
    with_digest,
)
from tests.broken_files import mutated, whole
from tests.fog import Probe
from tests.hostile import RESERVED, TASK, TOPICS, WITNESS, bombs, mutants, noise
from tests.processes import Fog, Program, photo, private_fog, same

#: Messages between two looks at whether everybody still answers.
ROUND = 500
#: Whoever takes longer to answer hangs.
ANSWER_S = 60.0
#: Of each process, over what it had when everything was loaded.
GROWTH_BYTES = 50 * 1024 * 1024
#: No damaged file may take longer, nor more address space.
DECODE_S, DECODE_BYTES = 5.0, 2 << 30
MAX_PIXELS = 4_000_000
DEVICES = ("eya", "manar")
_ANSWERS: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Rejected)


@dataclass
class Siege:
    """A fog, whoever attacks it, and whoever sees to it that it answers. Raises AssertionError."""

    fog: Fog
    hostile: Probe
    friend: Probe
    rng: random.Random
    sent: int = 0
    slowest_s: float = 0.0
    #: Resident bytes by process, at the first look and the last.
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    def round(self, count: int) -> None:
        """So many messages, then a look."""
        whole_round = (*mutants(self.rng, count * 3 // 4), *noise(self.rng, count // 4))
        for payload in whole_round:
            self._send(self.rng.choice(TOPICS), payload)
        for payload in noise(self.rng, count // 50):
            self._send(self.rng.choice(RESERVED), payload)
        self._send_file()
        self.look()

    def bomb(self) -> None:
        """What is small on the wire, to everybody."""
        for payload in bombs():
            for topic in TOPICS:
                self._send(topic, payload)
        self.look()

    def look(self) -> None:
        """Everybody answers, and nobody said anything that our own mistakes say."""
        began = time.monotonic()
        for program in self.programs:
            assert program.running, f"after {self.sent} messages: {program.said[-3000:]}"
        self._ask_gateway()
        for device in DEVICES:
            self._ask(device)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        for program in self.programs:
            assert "Traceback" not in program.said, program.said[-5000:]
        self.last = {program.log.stem: _memory(program) for program in self.programs}
        self.first = self.first or self.last

    @property
    def programs(self) -> list[Program]:
        return self.fog.programs

    @property
    def grown(self) -> dict[str, int]:
        """Bytes since the first look."""
        return {name: self.last[name] - self.first[name] for name in self.first}

    def job_is_exact(self) -> None:
        """An honest job, in the middle of all that."""
        picture = photo(240, 320, self.rng.randrange(1 << 20))
        data = cv2.imencode(".png", picture)[1].tobytes()
        self.friend.publish("fog/v1/submit/edges/good", data)
        answer = self.friend.message("fog/v1/replies/good/image", within=ANSWER_S)
        got = cv2.imdecode(np.frombuffer(answer.payload, np.uint8), cv2.IMREAD_UNCHANGED)
        assert got is not None
        assert same(got, cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), 50, 150))

    def _send(self, topic: str, payload: bytes) -> None:
        retain = self.rng.random() < 0.01
        self.hostile.publish(topic, payload, qos=self.rng.choice((0, 1)), retain=retain)
        self.sent += 1

    def _send_file(self) -> None:
        for _, data in mutated(self.rng, 3):
            self._send("fog/v1/submit/edges/me", data)

    def _ask_gateway(self) -> None:
        reply = f"look-{self.sent}"
        self.friend.publish(f"fog/v1/submit/nobody/{reply}", b"?")
        try:
            said = self.friend.message(f"fog/v1/replies/{reply}/status", within=ANSWER_S)
        except AssertionError:
            log = self.programs[-1].said[-3000:]
            raise AssertionError(f"no answer after {self.sent} messages: {log}") from None
        assert json.loads(said.payload)["state"] == "failed"

    def _ask(self, device: str) -> None:
        """A tile, asked for again while the device says that it is full."""
        task = msgspec.structs.replace(TASK, gateway=WITNESS, job="look.0", attempt=self.sent)
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            self.friend.publish(f"fog/v1/devices/{device}/tiles", encode(with_digest(task)))
            if self._answers(device, task.attempt):
                return
            time.sleep(0.1)
        raise AssertionError(f"{device} does not answer: {self.fog.programs[0].said[-2000:]}")

    def _answers(self, device: str, attempt: int) -> bool:
        """Whether it did the tile; False where it gives it back."""
        while True:
            message = self.friend.message(
                f"fog/v1/gateways/{WITNESS}/results/{device}", within=ANSWER_S
            )
            answer = _ANSWERS.decode(message.payload)
            if answer.job == "look.0" and answer.attempt == attempt:
                if isinstance(answer, Result):
                    return True
                if not isinstance(answer, Accepted):
                    return False


def besiege(folder: Path, seed: int, count: int) -> Siege:
    """`count` messages at real processes; returns how it went. Raises AssertionError."""
    # The witness is heard by the friend alone, and no message of the siege names it.
    heard = ("fog/v1/replies/#", f"fog/v1/gateways/{WITNESS}/results/+")
    with private_fog(folder, GATEWAY__INBOX="") as fog:
        fog.fleet(*DEVICES)
        fog.serve()
        with (
            fog.probe(client_id="hostile") as hostile,
            fog.probe(*heard, client_id="friend") as friend,
        ):
            siege = Siege(fog, hostile, friend, random.Random(seed))
            siege.job_is_exact()
            siege.bomb()
            siege.round(ROUND)
            siege.first = siege.last
            while siege.sent < count:
                siege.round(ROUND)
                if siege.sent // ROUND % 20 == 0:
                    siege.job_is_exact()
            siege.job_is_exact()
    grown = {name: size for name, size in siege.grown.items() if size > GROWTH_BYTES}
    assert not grown, f"these grew: {grown}"
    return siege


@dataclass(frozen=True)
class Decoded:
    """What became of damaged files."""

    read: int
    refused: int
    slowest_s: float
    slowest: str
    grown_bytes: int


def decode(seed: int, count: int) -> Decoded:
    """Read so many damaged files; a crash ends this process, anything but ImageError raises."""
    resource.setrlimit(resource.RLIMIT_DATA, (DECODE_BYTES, DECODE_BYTES))
    for name, data in whole().items():
        reader.read(data, name, max_pixels=MAX_PIXELS)
    before = _resident()
    read = 0
    slowest, slowest_s = "", 0.0
    for number, (name, data) in enumerate(mutated(random.Random(seed), count)):
        began = time.monotonic()
        try:
            read += reader.read(data, name, max_pixels=MAX_PIXELS).image.size > 0
        except ImageError:
            pass
        except Exception as problem:
            raise AssertionError(f"seed {seed}, file {number} ({name}): {problem!r}") from problem
        took_s = time.monotonic() - began
        if took_s > slowest_s:
            slowest, slowest_s = f"file {number} ({name})", took_s
    assert slowest_s < DECODE_S, f"seed {seed}: {slowest} took {slowest_s:.1f} s"
    return Decoded(read, count - read, slowest_s, slowest, _resident() - before)


def decode_apart(seed: int, count: int) -> Decoded:
    """`decode` in a process of its own. Raises AssertionError, also for its crash."""
    ran = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", "decode", str(seed), str(count)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, f"seed {seed}: exit code {ran.returncode}: {ran.stderr[-3000:]}"
    decoded = msgspec.json.decode(ran.stdout.splitlines()[-1], type=Decoded)
    assert decoded.grown_bytes < GROWTH_BYTES, f"seed {seed}: grew by {decoded.grown_bytes:,} bytes"
    return decoded


def _memory(program: Program) -> int:
    return int(psutil.Process(program.process.pid).memory_info().rss)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    if sys.argv[1:2] == ["decode"]:
        print(msgspec.json.encode(decode(*map(int, sys.argv[2:]))).decode())
        return
    options = parser.parse_args()
    for part in range(0, options.images, 1000):
        print(decode_apart(options.seed + part, min(1000, options.images - part)), flush=True)
    if options.messages:
        with tempfile.TemporaryDirectory(prefix="fogmqtt-fuzz-") as folder:
            siege = besiege(Path(folder), options.seed, options.messages)
        grown = {name: f"{size / 2**20:.1f} MB" for name, size in siege.grown.items()}
        print(f"{siege.sent} messages, slowest answers {siege.slowest_s:.1f} s, grown by {grown}")


if __name__ == "__main__":
    main()
