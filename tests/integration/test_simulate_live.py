"""`fog-gateway simulate --from-live`: the fleet that is online, and what more devices would do."""

from __future__ import annotations

import json
import re

import pytest

from tests.processes import Fog

pytestmark = pytest.mark.broker

ASKED = ("simulate", "--from-live", "--pixels", "24e6", "--pipeline", "gray | canny")


@pytest.fixture(scope="module", autouse=True)
def _examined(fog: Fog) -> None:
    """A device that is still being examined has no speed yet."""
    fog.examined()


def test_the_fleet_that_is_online_is_modelled_with_what_it_announces(fog: Fog) -> None:
    done = fog.command(*ASKED, "--add", "2x50e6", "--add", "1xeya")
    assert done.returncode == 0, done.stderr
    for device in ("eya", "manar", "oumayma"):
        assert re.search(rf"^{device}: 1 worker\(s\) of [\d.e+]+ MP/s$", done.stdout, re.MULTILINE)
    assert "links are assumed: 1000 Mbit/s and 1 ms each way" in done.stdout
    before, after = done.stdout.splitlines()[-2:]
    assert before.startswith("without 2x50e6, 1xeya: makespan ")
    assert after.startswith("with 2x50e6, 1xeya: makespan ")


def test_programs_get_figures_only(fog: Fog) -> None:
    done = fog.command(*ASKED, "--json")
    figures = json.loads(done.stdout)
    assert sorted(one["id"] for one in figures["devices"]) == ["eya", "manar", "oumayma"]
    assert figures["done"]


def test_without_devices_it_says_how_to_go_on(fog: Fog) -> None:
    with fog.probe(client_id="owner") as owner:  # of a device that is away: so none is waited for
        owner.publish("nobody/here/devices/away/status", b"offline", retain=True)
    done = fog.command(*ASKED, WIRE__PREFIX="nobody/here")
    assert done.returncode == 2
    assert "no device to model is online" in done.stderr
    assert "--fleet FILE" in done.stderr
