"""A stage on its way to a device and back, with what its operators learned."""

from __future__ import annotations

import numpy as np
import pytest

from fogmqtt.core.geometry import Auto, Size, TilePlan
from fogmqtt.errors import PlanError
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.images import codec
from fogmqtt.images.source import ArrayImage
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline
from fogmqtt.wire.messages import Decoder, Encoding, TileTask, encode
from fogmqtt.workers.process import compute
from tests.tiling import do_tile

PHOTO: Image = np.random.default_rng(1).integers(0, 256, (300, 400), dtype=np.uint8)
DECODER = Decoder(TileTask)


def begun(text: str, limit: int, encoding: Encoding, plan: TilePlan) -> StageRun:
    (stage,) = pipeline.split_stages(pipeline.parse(text), Spec.of(PHOTO))
    limits = MessageLimits(limit, encoding)
    return stage_run.plan_stage(
        "j1.0", stage, ArrayImage(PHOTO), ArrayImage(PHOTO), plan=plan, limits=limits, workers=2
    )


def messages(run: StageRun, encoding: Encoding) -> list[bytes]:
    return [
        encode(
            stage_run.make_task(run, tile, attempt=1, gateway="g", lease_s=9, wire_codec="raw"),
            encoding,
        )
        for tile in run.tiles
    ]


@pytest.mark.parametrize("encoding", ["binary", "base64"])
@pytest.mark.parametrize("text", ["clahe", "equalize", "clahe | gaussian | dilate", "otsu"])
def test_devices_and_the_gateways_own_cores_do_what_one_machine_does(
    text: str, encoding: Encoding
) -> None:
    run = begun(text, 200_000, encoding, Size(97, 113))
    expected = pipeline.run_whole(run.stage.operators, PHOTO, PHOTO)
    for tile, message in zip(run.tiles, messages(run, encoding), strict=True):
        shape = (tile.core.height, tile.core.width, 1)
        answer = compute(DECODER.decode(message))
        pixels = codec.decode(answer.data, "raw", shape, answer.dtype)
        assert np.array_equal(pixels, expected[tile.core.slices])
        assert np.array_equal(do_tile(run, tile), expected[tile.core.slices])


@pytest.mark.parametrize("encoding", ["binary", "base64"])
def test_tables_that_were_learned_take_their_room_in_a_message(encoding: Encoding) -> None:
    limit = 60_000
    sent = messages(begun("clahe", limit, encoding, Auto()), encoding)
    assert limit / 2 < max(map(len, sent)) <= limit


def test_a_message_that_tables_alone_would_fill_is_refused() -> None:
    with pytest.raises(PlanError):
        begun("clahe columns=16 rows=16", 70_000, "binary", Auto())


def test_operators_without_tables_leave_all_room_to_pixels() -> None:
    with_canny = begun("canny", 60_000, "binary", Auto())
    assert with_canny.tiles == begun("otsu | canny", 60_000, "binary", Auto()).tiles
