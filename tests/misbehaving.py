"""A plug-in whose operator misbehaves on tiles whose first pixel is 13, and inverts all others."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_OPERATORS = '''
import ctypes, os, time
from dataclasses import dataclass
import numpy as np
from fogmqtt.operators.api.base import Operator

@dataclass(frozen=True)
class Misbehave(Operator):
    """Inverts the tile. If its first pixel is 13, calls the method named by `how` instead."""
    name = "misbehave"
    how: str = "print"

    def process(self, image):
        if self.how in ("stick", "wait"):
            return getattr(self, self.how)(image)
        if image[0, 0].min() != 13:
            return 255 - image
        return getattr(self, self.how)(image)

    def print(self, image):
        print("x" * 100_000, flush=True)
        return 255 - image

    def raises(self, image):
        raise ValueError("boom \\ud800")

    def long(self, image):
        raise ValueError("x" * 100_000)

    def exit(self, image):
        raise SystemExit(3)

    def interrupt(self, image):
        raise KeyboardInterrupt

    def really_exit(self, image):
        os._exit(7)

    def kill(self, image):
        os.kill(os.getpid(), 9)

    def crash(self, image):
        ctypes.string_at(0)

    def hang(self, image):
        while True:
            time.sleep(0.01)

    def native_hang(self, image):
        ctypes.PyDLL(None).sleep(1000)

    def stick(self, image):
        """Hang once if a file `stick` exists, and rename it after the process of the device."""
        try:
            os.rename("stick", f"stuck-{os.getppid()}")
        except FileNotFoundError:
            return 255 - image
        ctypes.PyDLL(None).sleep(1000)

    def wait(self, image):
        """Until the file `open` is there, or one that frees the program whose worker this is."""
        while not (os.path.exists("open") or os.path.exists(f"free-{os.getppid()}")):
            time.sleep(0.01)
        return 255 - image

    def eat(self, image):
        kept = []
        while True:
            kept.append(np.ones(8 << 20, np.uint8))

    def nibble(self, image):
        kept = []
        while True:
            kept.append(bytearray(1000))

    def crumble(self, image):
        kept = []
        while True:
            kept.append(list(range(300, 310)))

    def leak(self, image):
        globals().setdefault("leaked", []).append(np.ones(220 << 20, np.uint8))
        return 255 - image

    def nothing(self, image):
        return None

    def list(self, image):
        return image.tolist()

    def larger(self, image):
        return np.concatenate([image, image])

    def double(self, image):
        return image.astype(np.float64)

    def deeper(self, image):
        return np.stack([image] * 2)[None]

    def backwards(self, image):
        return (255 - image)[::-1, ::-1][::-1, ::-1]

    def same(self, image):
        return image

    def babble(self, image):
        for descriptor in range(3, 1024):
            try:
                os.write(descriptor, b"?" * 16)
            except OSError:
                pass
        return 255 - image

    def silence(self, image):
        os.closerange(3, 1024)
        return 255 - image

    def nap(self, image):
        time.sleep(0.3)
        return 255 - image
'''


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the workers that the process with this id started itself."""
    return [child for child in psutil.Process(pid).children() if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "workers.process" in str(process.cmdline())
    except psutil.Error:
        return False  # it has just ended


def install(folder: Path) -> str:
    """Install the plug-in below `folder` as a package; returns the PYTHONPATH that includes it."""
    package = folder / "plugged"
    info = package / "misbehaving-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "misbehaving_operators.py").write_text(_OPERATORS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    entry = "[fogmqtt.operators]\nmisbehave = misbehaving_operators:Misbehave\n"
    (info / "entry_points.txt").write_text(entry)
    return os.pathsep.join((str(package), str(Path(__file__).parents[1])))
