"""Find edges with the devices at the configured broker.

    python examples/edges.py photo.jpg edges.png [local | CONFIG | mqtt://HOST]

Without a place, it uses config.yaml of the working directory, or the defaults.
"""

from __future__ import annotations

import sys

import fogmqtt  # before cv2: they must agree about rounding

import cv2  # isort: skip

if __name__ == "__main__":
    photo, result, *where = sys.argv[1:]
    with fogmqtt.connect(*where) as fog:
        job = fog.submit(photo, "gray | canny low=50 high=150")
        cv2.imwrite(result, job.result())
        print(job.report)
