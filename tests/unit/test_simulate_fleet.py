"""Fleet files: what they may say, and what they are told when they are wrong."""

import math
from pathlib import Path

import pytest

from fogmqtt.errors import ConfigError
from fogmqtt.simulate.fleet import Step, load_fleet

EXAMPLES = sorted((Path(__file__).parents[2] / "examples/fleets").glob("*.yaml"))


@pytest.fixture
def load(tmp_path):
    def _load(text, seed=0):
        path = tmp_path / "fleet.yaml"
        path.write_text(text, "utf-8")
        return load_fleet(path, seed)

    return _load


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fleet_can_be_loaded(path):
    assert load_fleet(path).devices


def test_a_device_needs_an_id_and_a_speed_only(load):
    (device,) = load("devices: [{id: pi, speed: 5.0e+6}]").devices
    assert (device.id, device.speed, device.workers) == ("pi", 5e6, 1)
    assert device.faults.crash_every_s == math.inf


def test_a_speed_may_be_written_as_people_write_it(load):
    """YAML 1.1 takes 5e6 for text."""
    (device,) = load("devices: [{id: pi, speed: 5e6}]").devices
    assert device.speed == 5e6


def test_a_count_makes_devices_with_numbered_ids(load):
    fleet = load("devices: [{id: pi, speed: 1, count: 3}, {id: eya, speed: 2}]")
    assert [device.id for device in fleet.devices] == ["pi-1", "pi-2", "pi-3", "eya"]


def test_a_range_of_speeds_is_drawn_by_seed(load):
    text = "devices: [{id: pi, speed: [1e6, 9e6], count: 20}]"
    speeds = [device.speed for device in load(text, 1).devices]
    assert min(speeds) >= 1e6
    assert max(speeds) <= 9e6
    assert len(set(speeds)) == 20
    assert [device.speed for device in load(text, 1).devices] == speeds
    assert [device.speed for device in load(text, 2).devices] != speeds


def test_defaults_fill_in_what_a_device_leaves_out(load):
    fleet = load(
        """
        defaults: {workers: 4, link: {rate_mbps: 100, latency_ms: 5}}
        devices:
          - {id: a, speed: 1}
          - {id: b, speed: 1, workers: 2, link: {latency_ms: 9}}
        """
    )
    a, b = fleet.devices
    assert (a.workers, a.link.rate_mbps, a.link.latency_ms) == (4, 100, 5)
    assert (b.workers, b.link.rate_mbps, b.link.latency_ms) == (2, 100, 9)


def test_drift_is_a_list_of_steps(load):
    (device,) = load("devices: [{id: a, speed: 1, drift: [{at_s: 3, factor: 0.1}]}]").devices
    assert device.drift == (Step(3, 0.1),)


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("devices: [{id: a, speed: 0}]", "devices[0].speed", "a number over 0, got 0"),
        ("devices: [{id: a, speed: -5}]", "devices[0].speed", "a number over 0, got -5"),
        ("devices: [{id: a, speed: .nan}]", "devices[0].speed", "a number over 0, got nan"),
        ("devices: [{id: a, speed: fast}]", "devices[0].speed", "a number over 0, got 'fast'"),
        ("devices: [{id: a, speed: [9, 1]}]", "devices[0].speed", "a number or [low, high]"),
        ("devices: [{id: a, speed: [0, 1]}]", "devices[0].speed[0]", "a number over 0"),
        ("devices: [{id: a}]", "devices[0].speed", "is missing"),
        ("devices: [{speed: 1}]", "devices[0].id", "is missing"),
        ("devices: [{id: A b, speed: 1}]", "devices[0].id", "is not an id"),
        ("devices: [{id: a, speed: 1}, {id: a, speed: 1}]", "devices", "'a' is there 2 times"),
        ("devices: []", "devices", "a list of at least one device"),
        ("outages: []", "devices", "a list of at least one device"),
        ("", "", "expected keys with values"),
        ("devices: [pi]", "devices[0]", "expected keys with values, got 'pi'"),
        ("devices: [{id: a, speed: 1, sped: 2}]", "devices[0].sped", "did you mean speed?"),
        ("device: []", "device", "did you mean devices?"),
        (
            "devices: [{id: a, speed: 1, link: {rate: 3}}]",
            "devices[0].link.rate",
            "did you mean rate_mbps?",
        ),
        (
            "devices: [{id: a, speed: 1, link: {rate_mbps: 0}}]",
            "devices[0].link.rate_mbps",
            "over 0",
        ),
        (
            "devices: [{id: a, speed: 1, link: {loss: 2}}]",
            "devices[0].link.loss",
            "from 0 up to 1, got 2",
        ),
        (
            "devices: [{id: a, speed: 1, drift: [{at_s: 1, factor: 0}]}]",
            "devices[0].drift[0].factor",
            "over 0, got 0",
        ),
        (
            "devices: [{id: a, speed: 1, drift: {at_s: 1, factor: 1}}]",
            "devices[0].drift",
            "expected a list",
        ),
        (
            "devices: [{id: a, speed: 1, faults: {crashes: [{for_s: 1}]}}]",
            "devices[0].faults.crashes[0].at_s",
            "is missing",
        ),
        (
            "devices: [{id: a, speed: 1, operators: [cany]}]",
            "devices[0].operators",
            "did you mean canny?",
        ),
        ("devices: [{id: a, speed: 1, workers: 0}]", "devices[0].workers", "a whole number"),
        ("defaults: {wrokers: 2}\ndevices: [{id: a, speed: 1}]", "defaults.wrokers", "workers?"),
        ("defaults: {id: b}\ndevices: [{id: a, speed: 1}]", "defaults.id", "leave it out"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(load, tmp_path, text, key, expected):
    with pytest.raises(ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'fleet.yaml'}: {key}")
    assert expected in message
