"""Which tiles run in a thread of the agent."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from fogmqtt.operators.api import registry
from fogmqtt.wire.messages import Call, TileTask
from fogmqtt.workers import trusted
from fogmqtt.workers.trusted import (
    MAX_BYTES,
    MAX_S,
    MEMORY_FACTOR,
    TRUSTED,
    UNTRUSTED,
    TrustedTiles,
)
from tests.agent_rig import task

INVERT = ["invert/uint8", "invert/float32"]
RATES = {"invert": 1.0, "gaussian": 2.0}


def a_tile(height: int = 500, width: int = 700, channels: int = 1, **changes: Any) -> TileTask:
    pixels = memoryview(bytes(height * width * channels))
    shape, core = (height, width, channels), (0, 0, height, width)
    return task(shape=shape, core=core, pixels=pixels, **changes)


class Rule(TrustedTiles):
    def allows(self, task: TileTask) -> bool:
        return self.allow(task) is not None

    def took(self, task: TileTask, cpu_s: float, *, is_sound: bool = True) -> None:
        """Record the time of a tile that is allowed."""
        kind = self.allow(task)
        assert kind is not None
        self.ran(kind, task.pixels.nbytes, cpu_s, is_sound=is_sound)


def a_rule(
    memory_mb: int = 0, abilities: list[str] = INVERT, rates: dict[str, float] = RATES
) -> Rule:
    rule = Rule(memory_mb)
    rule.learn(abilities, rates)
    return rule


def test_a_checked_ability_of_a_trusted_operator_is_allowed() -> None:
    assert a_rule().allows(a_tile())


def test_nothing_is_allowed_before_the_conformance_run() -> None:
    assert not Rule().allows(a_tile())


def test_an_ability_that_the_conformance_run_did_not_check_is_refused() -> None:
    assert not a_rule(abilities=["invert/uint16"]).allows(a_tile())


def test_every_operator_of_a_stage_must_be_allowed() -> None:
    both = [Call("invert"), Call("gaussian", {"ksize": 5})]
    assert not a_rule().allows(a_tile(stage=both))
    assert a_rule(abilities=[*INVERT, "gaussian/uint8"]).allows(a_tile(stage=both))


def test_an_operator_without_a_measured_speed_is_refused() -> None:
    assert not a_rule(rates={}).allows(a_tile())


@pytest.mark.parametrize("name", sorted(UNTRUSTED))
def test_an_untrusted_operator_is_refused(name: str) -> None:
    rule = a_rule(abilities=[f"{name}/uint8"], rates={name: 1.0})
    assert not rule.allows(a_tile(stage=[Call(name)]))


def test_a_plug_in_is_refused() -> None:
    rule = a_rule(abilities=["vignette/uint8"], rates={"vignette": 1.0})
    assert not rule.allows(a_tile(stage=[Call("vignette")]))


def test_somebody_decided_on_every_built_in_operator_that_devices_run() -> None:
    names = {name for name in registry.names() if registry.is_built_in(name)}
    tiled = {name for name in names if registry.load(name).tiled}
    assert tiled == TRUSTED | UNTRUSTED
    assert TRUSTED.isdisjoint(UNTRUSTED)


def test_encoded_pixels_are_refused() -> None:
    assert not a_rule().allows(a_tile(codec="png"))


def test_wrong_parameters_are_left_to_a_process() -> None:
    assert not a_rule().allows(a_tile(stage=[Call("invert", {"colour": 1})]))


def test_a_tile_that_should_take_too_long_is_refused() -> None:
    # 350 000 bytes at this many nanoseconds each.
    fast, slow = (factor * MAX_S * 1e9 / 350_000 for factor in (0.9, 1.1))
    assert a_rule(rates={"invert": fast}).allows(a_tile())
    assert not a_rule(rates={"invert": slow}).allows(a_tile())


def test_channels_and_large_pixels_count_as_time() -> None:
    rule = a_rule(rates={"invert": 0.5 * MAX_S * 1e9 / 350_000})
    assert rule.allows(a_tile())
    assert not rule.allows(a_tile(channels=3))


def test_a_wider_neighbourhood_counts_as_time() -> None:
    # `gaussian` looks at 5x5 pixels by default, and at 36 times as many with ksize=31.
    rule = a_rule(abilities=["gaussian/uint8"], rates={"gaussian": MAX_S * 1e9 / 350_000 / 10})
    assert rule.allows(a_tile(stage=[Call("gaussian", {"ksize": 7})]))
    assert not rule.allows(a_tile(stage=[Call("gaussian", {"ksize": 31})]))


def test_a_measured_speed_replaces_the_announced_one() -> None:
    slow, fast = a_rule(rates={"invert": 600.0}), a_rule(rates={"invert": 600.0})
    assert not fast.allows(a_tile(height=1_000))
    fast.took(a_tile(), 0.01)
    assert fast.allows(a_tile(height=1_000))
    slow.took(a_tile(), 0.9 * MAX_S)
    assert slow.allows(a_tile())
    assert not slow.allows(a_tile(height=600))


def test_a_small_tile_says_nothing_about_the_speed_of_a_large_one() -> None:
    rule = a_rule()
    rule.took(a_tile(20, 30), 0.01)
    assert rule.allows(a_tile())


def test_tiles_that_took_too_long_go_back_to_processes_for_good() -> None:
    rule = a_rule()
    kind = rule.allow(a_tile())
    assert kind is not None
    rule.ran(kind, 350_000, 1.1 * MAX_S)
    rule.ran(kind, 350_000, 0.001)  # another thread ran one at the same time
    assert not rule.allows(a_tile(20, 30))
    assert rule.allows(a_tile(channels=3)), "another kind of tiles is not affected"


def test_an_operator_that_raised_something_unexpected_goes_back_to_processes() -> None:
    rule = a_rule()
    rule.took(a_tile(), 0.001, is_sound=False)
    assert not rule.allows(a_tile())


def test_a_tile_that_is_large_for_a_workers_memory_is_refused() -> None:
    nbytes = (64 << 20) // MEMORY_FACTOR
    assert a_rule(memory_mb=64).allows(a_tile(1, nbytes))
    assert not a_rule(memory_mb=64).allows(a_tile(1, nbytes + 1))
    assert a_rule().allows(a_tile(1, MAX_BYTES))
    assert not a_rule(memory_mb=100_000).allows(a_tile(1, MAX_BYTES + 1))


def test_strangers_cannot_fill_the_memory_with_kinds_of_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trusted, "_MAX_KINDS", 2)
    rule = a_rule()
    for count in (1, 2):
        rule.took(a_tile(stage=[Call("invert")] * count), 0.001)
    assert rule.allows(a_tile())
    assert not rule.allows(a_tile(stage=[Call("invert")] * 3))


def test_what_cannot_be_allowed_loads_nothing() -> None:
    code = """
import sys
from fogmqtt.wire.messages import Call
from fogmqtt.workers.trusted import TrustedTiles
from fogmqtt.wire.messages import TileTask
rule = TrustedTiles()
rule.learn([], {"invert": 1.0})
for name in ("dnn", "codes", "vignette"):
    assert not rule.allow(TileTask(job="j", tile=0, attempt=1, gateway="g", stage=[Call(name)],
        shape=(1, 1, 1), dtype="uint8", core=(0, 0, 1, 1), lease_s=1, pixels=memoryview(b"1")))
assert not {"numpy", "cv2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
