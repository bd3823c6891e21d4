"""The description of the HTTP API holds: schemathesis asks a real gateway for what it allows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_dashboard import WITH_PAGE, page_of
from tests.processes import Fog, photo, private_fog

pytestmark = [pytest.mark.broker, pytest.mark.proof]

#: Seconds in which new requests are made.
BUDGET_S = 20


@pytest.fixture
def fog(tmp_path: Path) -> Iterator[Fog]:
    with private_fog(tmp_path, **WITH_PAGE) as made:
        yield made


def test_no_request_leads_to_an_answer_that_the_description_does_not_have(fog):
    page = page_of(fog.serve())
    image = fog.save("photo.png", photo(16, 16))
    status, _, body = page.ask("PUT", "/api/run/edges", image.read_bytes())
    assert status == 200, body
    command = (
        *("-m", "schemathesis.cli", "run", f"http://{page.host}:{page.port}/api/openapi.json"),
        # Events have no end. A pipeline that no gateway has is refused, as it must be.
        *("--exclude-path", "/api/events", "--exclude-checks", "positive_data_acceptance"),
        *("--phases", "coverage,fuzzing", "--max-examples", "5", "--max-time", str(BUDGET_S)),
        *("--seed", "1", "--generation-database", "none", "--warnings", "off", "--no-color"),
    )
    done = subprocess.run(
        [sys.executable, *command],
        cwd=fog.folder,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert page.ask("GET", "/healthz")[0] == 200
    assert "Traceback" not in fog.programs[-1].said
