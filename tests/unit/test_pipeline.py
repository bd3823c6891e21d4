"""Pipelines: their text, their stages, and their execution on a tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import pytest

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.api.base import Operator, learned
from fogmqtt.operators.colour.spaces import Gray
from fogmqtt.operators.edges.canny import Canny
from fogmqtt.operators.filters.smoothing import Gaussian

PHOTO = Spec(3000, 4000, 3)


@dataclass(frozen=True)
class Shrink(Operator):
    """Runs tile by tile and changes the size, which is not allowed."""

    name: ClassVar[str] = "shrink"

    def output(self, spec: Spec) -> Spec:
        return replace(spec, height=spec.height // 2)


@dataclass(frozen=True)
class NeedsWholeImage(Operator):
    """Must see the whole image first."""

    name: ClassVar[str] = "needs_whole_image"
    begins_stage: ClassVar[bool] = True
    align: ClassVar[int] = 64


def stages_of(text: str, spec: Spec = PHOTO) -> list[str]:
    """Return each stage as `gateway operators > device operators`, an untiled one in brackets."""
    described = []
    for stage in pipeline.split_stages(pipeline.parse(text), spec):
        work = pipeline.format_pipeline(stage.operators)
        first = pipeline.format_pipeline(stage.gateway_operators)
        described.append(f"{first} > {work}" if stage.tiled else f"[{work}]")
    return described


def test_a_pipeline_is_parsed_to_operators_with_typed_parameters() -> None:
    assert pipeline.parse("gray | gaussian ksize=7 |canny low=20.5 l2=true ") == (
        Gray(),
        Gaussian(ksize=7),
        Canny(low=20.5, l2=True),
    )


@pytest.mark.parametrize(
    "text",
    [
        "gray",
        "gray | gaussian ksize=7 | canny low=50.123456789 high=1e-07 l2=true",
        "threshold value=12345.5 inverse=true",
        "dilate shape=cross | resize factor=0.5 method=area | overlay colour=#00ff00",
    ],
)
def test_a_formatted_pipeline_parses_to_the_same_operators(text: str) -> None:
    operators = pipeline.parse(text)
    assert pipeline.format_pipeline(operators) == text
    assert [registry.build(*call) for call in pipeline.to_calls(operators)] == list(operators)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gray | cany", "column 8: no operator is called 'cany'; did you mean 'canny'?"),
        ("canny lo=5", "column 7: canny has no parameter 'lo'; did you mean 'low'?"),
        ("gray ksize=5", "column 6: gray has no parameter 'ksize'; it has no parameters"),
        ("gray | canny low=x", "column 14: canny: low=x: expected `float`, got `str`"),
        ("canny low=inf", "column 7: canny: low=inf: expected a finite number"),
        ("canny low=1 low=2", "column 13: canny has 'low' twice"),
        ("canny fast", "column 7: 'fast' is not a parameter of canny; write name=value"),
        ("gray | | canny", "column 7: there is no operator between the bars"),
        ("gray |", "column 7: there is no operator between the bars"),
        ("gaussian ksize=4", "column 10: gaussian: ksize=4: expected an odd number"),
        ("gray | gaussian ksize=5 sigma=-1", "column 25: gaussian: sigma=-1: expected 0 to 31"),
        ("resize", "column 1: resize: factor=0: give either a factor, or width or height"),
        ("  ", "the pipeline is empty"),
    ],
)
def test_an_error_names_the_wrong_word_its_column_and_a_correction(text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        pipeline.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_consecutive_tiled_operators_fuse_and_their_halos_add_up() -> None:
    (stage,) = pipeline.split_stages(pipeline.parse("gray | gaussian ksize=7 | canny"), PHOTO)
    assert stage.halo == 3 + 2
    assert stage.source == PHOTO
    assert stage.sent == stage.result == Spec(3000, 4000, 1)


def test_the_gateway_runs_first_operators_that_reduce_bytes() -> None:
    assert stages_of("gray | canny") == ["gray > canny"]
    assert stages_of("to8bit | gray | canny") == ["to8bit | gray > canny"]


def test_operators_that_save_no_bytes_run_on_the_device() -> None:
    assert stages_of("gray | canny", Spec(3000, 4000)) == [" > gray | canny"]
    assert stages_of("gray | to8bit | canny") == ["gray > to8bit | canny"]


def test_a_device_keeps_at_least_one_operator() -> None:
    assert stages_of("gray") == [" > gray"]
    assert stages_of("gray | to8bit", Spec(9, 9, 3, "uint16")) == ["gray > to8bit"]


def test_operators_behind_canny_get_the_merged_edges() -> None:
    assert stages_of("canny | dilate | erode") == [" > canny", " > dilate | erode"]


def test_operators_that_need_the_whole_image_run_on_the_gateway() -> None:
    text = "gray | resize factor=0.5 | canny | overlay | resize width=100"
    assert stages_of(text, Spec(10, 10, 3)) == [
        "[gray]",
        "[resize factor=0.5]",
        " > canny",
        "[overlay | resize width=100]",
    ]


def test_an_operator_that_learns_from_the_whole_image_begins_a_stage() -> None:
    found = pipeline.split_stages((Gray(), NeedsWholeImage(), Gaussian()), PHOTO)
    assert [len(stage.operators) for stage in found] == [1, 2]
    assert [stage.align for stage in found] == [1, 64]


def test_a_stage_that_only_reduces_bytes_runs_on_the_gateway() -> None:
    assert stages_of("gray | otsu") == ["[gray]", " > otsu"]
    assert stages_of("gray | gaussian | otsu") == ["gray > gaussian", " > otsu"]
    assert stages_of("gray") == [" > gray"]


def test_float_pixels_align_their_tiles() -> None:
    (stage,) = pipeline.split_stages(pipeline.parse("gaussian | median"), PHOTO)
    assert stage.align == 1
    (stage,) = pipeline.split_stages(pipeline.parse("tofloat | gaussian | to8bit"), PHOTO)
    assert stage.align == 64


@dataclass(frozen=True)
class LearnsMean(Operator):
    """NeedsWholeImage the image's mean and the tile's position."""

    name: ClassVar[str] = "learns_mean"
    begins_stage: ClassVar[bool] = True

    factor: float = 1.0
    mean: float | None = learned()
    place: tuple[int, int] | None = learned()

    def prepare(self, image: Image, original: Image) -> Self:
        return replace(self, mean=float(image.mean()))

    def for_tile(self, outer: Rect, size: tuple[int, int]) -> Self:
        return replace(self, place=(outer.top, outer.left))


def test_learned_fields_are_sent_but_not_formatted() -> None:
    chain = (LearnsMean(factor=2.0), Gaussian())
    (stage,) = pipeline.split_stages(chain, PHOTO)
    image: Image = np.full((4, 4), 3, np.uint8)
    operators = pipeline.prepare(stage, image, image)
    assert pipeline.format_pipeline(operators) == "learns_mean factor=2 | gaussian"
    sent = pipeline.to_calls(pipeline.for_tile(operators, Rect(5, 7, 2, 2), (9, 9)))
    assert sent == [
        ("learns_mean", {"factor": 2.0, "mean": 3.0, "place": (5, 7)}),
        ("gaussian", {}),
    ]
    assert list(registry.parameters(LearnsMean)) == ["factor"]


def test_a_learned_field_cannot_be_written() -> None:
    with pytest.raises(PipelineError, match="column 6: otsu has no parameter 'value'"):
        pipeline.parse("otsu value=3")


def test_an_invalid_pipeline_is_refused_before_any_pixel_is_processed() -> None:
    with pytest.raises(OperatorError, match=r"canny takes uint8, not .* put 'to8bit' before it"):
        pipeline.split_stages((Canny(),), Spec(5, 5, 1, "uint16"))
    with pytest.raises(OperatorError, match="overlay takes 1 channel"):
        stages_of("gaussian | overlay")


def test_a_plug_in_that_changes_the_size_of_tiles_is_refused() -> None:
    with pytest.raises(OperatorError, match=r"shrink .* must keep the size"):
        pipeline.split_stages((Shrink(),), PHOTO)


def test_a_tile_s_result_is_the_core_in_its_own_memory() -> None:
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    for core in (Rect(0, 0, 4, 5), Rect(1, 2, 2, 3)):
        result = pipeline.run_tile((Gray(),), pixels, core, Seams())
        assert np.array_equal(result, pixels[core.slices])
        assert result.flags.c_contiguous
        assert not np.may_share_memory(result, pixels)


def test_a_device_refuses_a_core_outside_its_tile_and_an_empty_stage() -> None:
    pixels: Image = np.zeros((4, 5), np.uint8)
    with pytest.raises(OperatorError, match="is not within a tile"):
        pipeline.run_tile((Gray(),), pixels, Rect(1, 0, 4, 5), Seams())
    with pytest.raises(OperatorError, match="has no operators"):
        pipeline.run_tile((), pixels, Rect(0, 0, 4, 5), Seams())


def test_a_device_refuses_pixels_that_its_operators_cannot_take() -> None:
    pixels: Image = np.zeros((4, 5), np.int16)
    with pytest.raises(OperatorError, match="gaussian takes uint8 or uint16"):
        pipeline.run_tile((Gaussian(),), pixels, Rect(0, 0, 4, 5), Seams())
