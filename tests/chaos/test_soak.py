"""Two hundred jobs leave gateway and devices as they were; 10 000 by `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import soak, told

pytestmark = [pytest.mark.broker, pytest.mark.chaos]


def test_memory_files_and_threads_stay_over_two_hundred_jobs(
    broker: object, tmp_path: Path
) -> None:
    del broker  # skips or fails where Mosquitto is missing
    done = soak(tmp_path, 200, every_s=0.1)
    assert not done.wrong, told(done)
    assert not done.grown(), told(done)
    assert len(done.latencies_s) == 200
