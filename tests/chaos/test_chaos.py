"""A short share of the chaos: every job exact or failed as planted, each accepted job ends once.

The whole by `make chaos`; one seed alone by `python -m tests.chaos --seed 7`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.play import play
from tests.chaos.report import problems
from tests.chaos.schedule import drawn

pytestmark = [pytest.mark.broker, pytest.mark.chaos]


# Between them: kills of everybody and of all at once, freezes, a full disk, corrupt bytes, echoes.
@pytest.mark.parametrize("seed", [665, 756])
def test_every_job_is_exact_or_failed_as_planted_and_ends_once(
    seed: int, broker: object, tmp_path: Path
) -> None:
    del broker  # skips or fails where Mosquitto is missing
    run = play(drawn(seed, faults=10, jobs=7, length_s=7), tmp_path)
    assert run.is_good, "\n".join(problems(run))
    assert len(run.verdicts) == 7
