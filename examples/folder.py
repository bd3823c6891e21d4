"""Measure a folder of images, a few at a time, and print what stands out as CSV.

    python examples/folder.py photos/ [local | CONFIG | mqtt://HOST]

A damaged image does not end it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fogmqtt

if __name__ == "__main__":
    folder, *where = sys.argv[1:]
    images = sorted(path for path in Path(folder).iterdir() if path.is_file())
    with fogmqtt.connect(*where) as fog:
        results = fog.map(images, "gray | otsu | components", ahead=8, errors="yield")
        for path, facts in zip(images, results, strict=True):
            problem = isinstance(facts, Exception)
            print(path.name, facts if problem else facts["count"], sep=",")
