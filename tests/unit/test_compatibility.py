"""Who may do what: devices that round as the gateway does; the others hear why not."""

from __future__ import annotations

import asyncio

import pytest

from fogmqtt.conformance.report import ConformanceReport, OperatorReport, version_difference
from fogmqtt.core.scheduling.events import DeviceJoined, Event
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.devices.registry import DeviceRegistry
from fogmqtt.gateway.execution.local_device import LocalDevice
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api.pipeline import parse, split_stages
from fogmqtt.wire.messages import DTYPES, DeviceInfo, encode

HERE = ConformanceReport(
    {
        "gray": OperatorReport("gray", "fogmqtt", "1", {"gray/uint8": "a", "gray/float32": "b"}),
        "canny": OperatorReport("canny", "fogmqtt", "1", {"canny/uint8": "c"}),
        "soften": OperatorReport("soften", "softener", "2", {"soften/uint8": "d"}),
    },
    versions={
        "opencv": "5.0.0",
        "machine": "x86_64",
        "cpu": "AVX AVX2",
        "fogmqtt": "1",
        "softener": "2",
    },
)


def info(**changes: object) -> DeviceInfo:
    fields: dict[str, object] = {
        "boot": "b1",
        "sequence": 1,
        "uptime_s": 1.0,
        "workers": 2,
        "operators": ["gray", "canny", "soften"],
        "fingerprints": HERE.fingerprints,
        "versions": HERE.versions,
    }
    return DeviceInfo(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def compatibility() -> Compatibility:
    made = Compatibility(exact=True)
    made.set_reference(HERE)
    return made


def test_a_device_may_do_what_it_rounds_alike(compatibility: Compatibility) -> None:
    offer = compatibility.check(info(fingerprints={**HERE.fingerprints, "gray/float32": "x"}))
    assert offer.abilities == {"gray/uint8", "canny/uint8", "soften/uint8"}
    assert offer.lacks == {"gray/float32": "rounds differently"}


def test_an_engine_that_a_machine_lacks_is_named_with_the_extra_to_install() -> None:
    engine = {"dnn/uint8": "a", "dnn/uint8/onnx": "b"}
    with_it = ConformanceReport({"dnn": OperatorReport("dnn", "fogmqtt", "1", engine)})
    without = ConformanceReport({"dnn": OperatorReport("dnn", "fogmqtt", "1", {"dnn/uint8": "a"})})
    for here, there, who in ((with_it, without, ""), (without, with_it, "this gateway ")):
        compatibility = Compatibility(exact=True)
        compatibility.set_reference(here)
        offer = compatibility.check(info(operators=["dnn"], fingerprints=there.fingerprints))
        assert offer.abilities == {"dnn/uint8"}
        assert offer.lacks == {
            "dnn/uint8/onnx": f"{who}has no ONNX Runtime: pip install 'fogmqtt[onnx]'"
        }


def test_the_reason_names_the_versions_that_differ(compatibility: Compatibility) -> None:
    prints = {**HERE.fingerprints, "gray/float32": "x", "soften/uint8": "y"}
    older = HERE.versions | {"opencv": "4.10.0", "softener": "1"}
    assert compatibility.differences(info(fingerprints=prints, versions=older)) == {
        "gray/float32": "rounds differently (OpenCV 4.10.0 there, 5.0.0 here)",
        "soften/uint8": "rounds differently (softener 1 there, 2 here)",
    }


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ({}, ""),
        (HERE.versions, ""),
        ({"opencv": "5.0.0", "machine": "aarch64", "cpu": "NEON"}, "aarch64 there, x86_64 here"),
        (HERE.versions | {"cpu": "AVX"}, "without AVX2 there"),
        (HERE.versions | {"cpu": "AVX AVX2 AVX512"}, "without AVX512 here"),
    ],
)
def test_a_difference_is_looked_for_where_it_is_likeliest(there: dict[str, str], why: str) -> None:
    assert version_difference(there, HERE.versions) == why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fingerprints": {}, "conformance_running": True}, "is still being examined"),
        ({"fingerprints": {}, "operators": ["gray"]}, "is not installed"),
        ({"fingerprints": {}, "problems": ["canny: ImportError: no cv2"]}, "ImportError: no cv2"),
        ({"fingerprints": {}}, "announces no fingerprint"),
    ],
)
def test_what_is_missing_is_said_too(
    compatibility: Compatibility, changes: dict[str, object], why: str
) -> None:
    offer = compatibility.check(info(**changes))
    assert offer.abilities == frozenset()
    assert offer.lacks["canny/uint8"] == why
    assert compatibility.differences(info(**changes)) == {}


def test_what_the_gateway_could_not_check_is_given_to_nobody(
    compatibility: Compatibility,
) -> None:
    offer = compatibility.check(info(fingerprints={"hsv/uint8": "z"}))
    assert offer.abilities == frozenset()
    assert offer.lacks["hsv/uint8"] == "this gateway could not examine it"


def test_without_exact_a_device_is_taken_at_its_word() -> None:
    compatibility = Compatibility(exact=False)
    assert compatibility.is_complete
    offer = compatibility.check(info(fingerprints={}, operators=["gray"]))
    assert offer.abilities == {f"gray/{dtype}" for dtype in DTYPES}
    assert offer.lacks == {}
    assert compatibility.differences(info()) == {}


def test_without_exact_a_device_gets_the_dtypes_that_it_announces() -> None:
    compatibility = Compatibility(exact=False)
    offer = compatibility.check(info(fingerprints={}, operators=["gray"], dtypes=["uint8"]))
    assert offer.abilities == {"gray/uint8"}
    assert offer.lacks["gray/uint16"] == "takes uint8 only"


def test_until_the_gateway_is_examined_nobody_may_do_anything_and_then_all_are_judged() -> None:
    fed: list[Event] = []
    registry = DeviceRegistry(fed.append, Compatibility(exact=True))
    registry.received("eya", "info", encode(info()), False, 0.0)
    assert not registry.compatibility.is_complete
    assert registry.operators("eya") == frozenset()
    registry.conformance_known(HERE)
    assert registry.compatibility.is_complete
    assert fed[-1] == DeviceJoined("eya", "b1", 2, frozenset(HERE.fingerprints), {})


def test_a_stage_waits_only_until_its_own_operators_are_compared() -> None:
    """With a cold cache the gateway's own conformance run takes half a minute on a small board."""
    (stage,) = split_stages(parse("invert | gray"), Spec(9, 9, 3))
    compatibility = Compatibility(exact=True)
    first, second = (
        ConformanceReport({name: OperatorReport(name)}, unchecked=[other, "canny"])
        for name, other in (("invert", "gray"), ("gray", "invert"))
    )
    both = ConformanceReport(first.operators | second.operators, unchecked=["canny"])

    async def wait() -> None:
        waiting = asyncio.ensure_future(compatibility.wait_for(stage))
        for report in (first, second):
            compatibility.set_reference(report)
            await asyncio.sleep(0)
            assert not waiting.done()
        compatibility.set_reference(both)
        await asyncio.wait_for(waiting, 10)
        assert not compatibility.is_complete
        everything = asyncio.ensure_future(compatibility.wait_until_complete())
        await asyncio.sleep(0)
        assert not everything.done()
        compatibility.set_reference(HERE)
        await asyncio.wait_for(everything, 10)

    asyncio.run(wait())


def test_an_ability_that_is_not_checked_here_yet_is_not_called_impossible() -> None:
    compatibility = Compatibility(exact=True)
    compatibility.set_reference(ConformanceReport(unchecked=["gray"]))
    assert compatibility.check(info()).lacks["gray/uint8"] == "is not compared yet"
    compatibility.set_reference(ConformanceReport())
    assert compatibility.check(info()).lacks["gray/uint8"] == "this gateway could not examine it"


def test_a_device_that_is_away_does_not_come_back_by_being_judged() -> None:
    fed: list[Event] = []
    registry = DeviceRegistry(fed.append, Compatibility(exact=True))
    registry.received("eya", "info", encode(info()), True, 0.0)
    registry.conformance_known(HERE)
    assert fed == []


def test_a_device_joins_again_when_its_examination_is_in(compatibility: Compatibility) -> None:
    fed: list[Event] = []
    registry = DeviceRegistry(fed.append, compatibility)
    running = info(fingerprints={}, conformance_running=True)
    registry.received("eya", "info", encode(running), False, 0.0)
    registry.received("eya", "info", encode(info()), False, 1.0)
    joined = [event.operators for event in fed if isinstance(event, DeviceJoined)]
    assert joined == [frozenset(), frozenset(HERE.fingerprints)]


def test_the_gateways_own_cores_can_do_whatever_it_plans() -> None:
    fed: list[Event] = []
    local = LocalDevice("boot", fed.append, lambda: False)
    local.offer(frozenset({"gray/uint8"}))
    assert fed == []
    local.join()
    local.offer(frozenset({"canny/uint8/new"}))
    local.offer(frozenset({"canny/uint8/new"}))
    first, second = (event for event in fed if isinstance(event, DeviceJoined))
    assert "gray/uint8" in first.operators
    assert "canny/uint8/new" in second.operators
    assert first.boot == second.boot
