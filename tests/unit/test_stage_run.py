"""A stage of a job: planned within the message limit, cut, checked and merged."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from fogmqtt.core.geometry import Auto, Grid, Seams, TilePlan
from fogmqtt.core.tiling import parts
from fogmqtt.errors import PlanError, WireError
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.images import codec
from fogmqtt.images.source import ArrayImage, ImageSource
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.pipeline import parse, run_whole, split_stages
from fogmqtt.wire.messages import Result, check_digest, encode, with_digest
from tests.tiling import do_tile

IMAGE = np.random.default_rng(5).integers(0, 256, (200, 300, 3), np.uint8)


def begun(
    pipeline: str, plan: TilePlan, limit: int = 900_000, image: Image = IMAGE, workers: int = 3
) -> StageRun:
    (stage,) = split_stages(parse(pipeline), Spec.of(image))
    limits = MessageLimits(limit, "binary")
    source = ArrayImage(image)
    return stage_run.plan_stage(
        "j.0", stage, source, source, plan=plan, limits=limits, workers=workers
    )


def answer(run: StageRun, index: int) -> Result:
    """What a device would send."""
    pixels = do_tile(run, run.tiles[index])
    spec = Spec.of(pixels)
    coding = run.operators[-1].result_codec
    return with_digest(
        Result(
            job=run.key,
            tile=index,
            attempt=1,
            shape=(spec.height, spec.width, spec.channels),
            dtype="uint8",
            codec=coding,
            pixels=memoryview(codec.encode(pixels, coding)),
        )
    )


def test_cut_done_and_merged_it_is_the_whole() -> None:
    run = begun("gray | median ksize=5 | canny", Grid(3, 4))
    for tile in run.tiles:
        run.merger.paste(tile, stage_run.decode_result(run, tile, answer(run, tile.index)))
    expected = run_whole(parse("gray | median ksize=5 | canny"), IMAGE, IMAGE)
    assert np.array_equal(run.merger.finish(), expected)


def test_a_colour_image_for_a_gray_stage_travels_as_one_channel() -> None:
    run = begun("gray | canny", Grid(1, 1))
    assert stage_run.cut_tile(run, run.tiles[0]).shape == (200, 300)
    assert [operator.name for operator in run.operators] == ["canny"]


def test_a_written_plan_is_cut_smaller_where_only_the_brokers_limit_rules_it_out() -> None:
    (stage,) = split_stages(parse("median ksize=5"), Spec.of(IMAGE))
    source, limits = ArrayImage(IMAGE), MessageLimits(20_000, "binary", configured_bytes=900_000)
    run = stage_run.plan_stage(
        "j.0", stage, source, source, plan=Grid(2, 2), limits=limits, workers=3
    )
    assert len(run.tiles) > 4
    for tile in run.tiles:
        task = stage_run.make_task(
            run, tile, attempt=1, gateway="mariem", lease_s=1.0, wire_codec="raw"
        )
        assert len(encode(task)) <= 20_000
    for configured in (None, 40_000):
        tight = MessageLimits(20_000, "binary", configured)
        with pytest.raises(PlanError, match="the largest tile takes"):
            stage_run.plan_stage(
                "j.0", stage, source, source, plan=Grid(2, 2), limits=tight, workers=3
            )


@pytest.mark.parametrize("limit", [4096, 20_000, 900_000])
def test_no_message_of_an_automatic_plan_is_over_the_limit(limit: int) -> None:
    run = begun("gray | canny", Auto(), limit)
    for tile in run.tiles:
        task = stage_run.make_task(
            run, tile, attempt=1, gateway="mariem", lease_s=30.0, wire_codec="raw"
        )
        check_digest(task)
        assert len(encode(task)) <= limit


def test_base64_has_room_for_three_quarters() -> None:
    assert MessageLimits(900_000, "base64").pixel_bytes == 675_000


def test_a_plan_that_is_too_coarse_for_a_message_is_refused() -> None:
    with pytest.raises(PlanError, match=r"wire\.max_message_bytes"):
        begun("gray | canny", Grid(1, 1), 20_000)


def test_seams_travel_as_letters() -> None:
    assert stage_run.format_seams(Seams()) == ""
    assert stage_run.format_seams(Seams(top=True, right=True)) == "tr"
    assert stage_run.format_seams(Seams(top=True, left=True, bottom=True, right=True)) == "tlbr"


def test_wrong_results_are_refused_whatever_is_wrong() -> None:
    run = begun("gray | canny", Grid(2, 2))
    good = answer(run, 0)
    tile = run.tiles[0]
    stage_run.decode_result(run, tile, good)
    wrong = (
        msgspec.structs.replace(good, digest="0"),
        msgspec.structs.replace(good, pixels=memoryview(b"x")),
        with_digest(msgspec.structs.replace(good, shape=(1, 1, 1))),
        with_digest(msgspec.structs.replace(good, dtype="uint16")),
        with_digest(msgspec.structs.replace(good, codec="raw")),
        with_digest(msgspec.structs.replace(good, pixels=memoryview(b"x" * 40))),
    )
    for result in wrong:
        with pytest.raises(WireError):
            stage_run.decode_result(run, tile, result)


def test_a_tile_of_another_shape_is_not_this_one() -> None:
    run = begun("gray | canny", Grid(3, 7))
    wide = next(tile for tile in run.tiles if tile.core.width != run.tiles[0].core.width)
    with pytest.raises(WireError, match="expected"):
        stage_run.decode_result(run, wide, answer(run, 0))


@pytest.mark.parametrize("pipeline", ["invert", "gray | canny", "bilateral"])
def test_parts_are_measured_for_each_tile_as_if_it_were_the_only_one(pipeline: str) -> None:
    image = np.zeros((700, 1111, 3), np.uint8)
    run = begun(pipeline, Auto(), image=image, workers=1)
    halo, align = run.stage.halo, run.stage.align
    alone = [parts([tile], halo=halo, align=align) for tile in run.tiles]
    assert run.halves_pixels == tuple(only for (only,) in alone)
    assert len(run.tiles) > 1


@pytest.mark.parametrize(
    "pipeline",
    [
        "invert",
        "gray | canny",
        "gray | median ksize=5 | canny",
        "gaussian ksize=7",
        "autocanny",
        "gray | otsu",
        "gray | stats",
        "gray | threshold | components",
    ],
)
def test_done_in_strips_it_is_the_whole(pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_run, "_STRIPS_PIXELS", 9000)
    original: ImageSource = ArrayImage(IMAGE)
    image, made = original, None
    for stage in split_stages(parse(pipeline), original.spec):
        made = stage_run.run_in_strips(stage, image, original)
        if not isinstance(made, dict):
            image = ArrayImage(made)
    expected = run_whole(parse(pipeline), IMAGE, IMAGE)
    if isinstance(made, dict):
        assert made == expected
    else:
        assert made is not None
        assert np.array_equal(made, expected)
