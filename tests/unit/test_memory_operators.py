"""Operators with memory: what they give for a few frames, what they refuse, how memories move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.errors import OperatorError, PipelineError, WireError
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline
from fogmqtt.operators.api.memory import FrameMemory, load_memory, memory_needs
from fogmqtt.operators.api.pipeline import parse, parse_post, run_whole, split_stages

SIZE = Rect(0, 0, 4, 6)


def flat(value: int) -> Image:
    return np.full((4, 6), value, np.uint8)


def stream(text: str, frames: Sequence[Image]) -> list[Image]:
    """Return the results for all frames of a stream on one machine."""
    memory = FrameMemory()
    done = [memory.run_whole(parse(text), one, one, at) for at, one in enumerate(frames)]
    return [one for one in done if isinstance(one, np.ndarray)]


def values(text: str, grays: Sequence[int]) -> list[int]:
    """Return the first pixel of each result, for frames of one value each."""
    return [int(one.flat[0]) for one in stream(text, [flat(gray) for gray in grays])]


def test_diff_compares_with_the_frame_before_and_begins_with_zeros() -> None:
    assert values("diff", [10, 13, 5, 5]) == [0, 3, 8, 0]


def test_the_median_of_frames_ignores_what_is_seen_for_a_moment() -> None:
    assert values("median_of frames=3", [10, 200, 12, 13, 0, 14]) == [10, 10, 12, 13, 12, 13]


def test_the_median_of_many_frames_equals_the_sorted_middle() -> None:
    frames = list(np.random.default_rng(1).integers(0, 256, (20, 4, 6), dtype=np.uint8))
    for count in (3, 5, 9, 15):
        for at, result in enumerate(stream(f"median_of frames={count}", frames)):
            seen = np.sort(frames[max(0, at - count + 1) : at + 1], axis=0)
            assert np.array_equal(result, seen[(len(seen) - 1) // 2])


def test_an_average_begins_as_the_first_frame_and_soon_follows_slowly() -> None:
    assert values("average rate=1", [100, 0, 0, 0]) == [100, 50, 25, 13]
    assert values("average rate=12", [0, 100]) == [0, 50]
    assert values("average rate=3", [200] * 20) == [200] * 20


def test_the_background_of_a_still_picture_is_empty_and_a_new_thing_is_foreground() -> None:
    frames = [flat(100)] * 80
    thing = flat(100)
    thing[1:3, 2:4] = 140
    masks = stream("background", [*frames, thing])
    assert not np.any(masks[:-1])
    assert np.array_equal(masks[-1] == 255, thing == 140)


def test_a_thing_that_stays_becomes_background() -> None:
    masks = values("background rate=2 absorb=3", [100] * 10 + [160] * 60)
    assert masks[10] == 255
    assert masks[-1] == 0


@pytest.mark.parametrize(
    ("grays", "rate", "threshold", "noise", "absorb"),
    [
        ([int(one) for one in np.random.default_rng(3).integers(0, 256, 60)], 3, 2, 9, 5),
        ([255 * (at % 2) for at in range(60)], 4, 16, 64, 15),  # the largest numbers
        ([255 * (at % 2) for at in range(60)], 1, 1, 1, 1),
    ],
)
def test_the_background_follows_its_formula_in_python_integers(
    grays: list[int], rate: int, threshold: int, noise: int, absorb: int
) -> None:
    mean, variance, expected = grays[0] << 16, noise**2 << 14, [0]
    for count, gray in enumerate(grays[1:], 1):
        d = (gray << 16) - mean
        q = (d >> 12) ** 2
        is_far = q > threshold**2 * max(variance >> 6, noise**2 << 8)
        expected.append(255 if is_far else 0)
        k = min(rate, (count + 1).bit_length() - 1)
        is_held = is_far and count >= 1 << rate
        mean += d >> (absorb if is_held else k)
        variance += 0 if is_held else ((q << 6) - variance) >> k
    text = f"background rate={rate} threshold={threshold} noise={noise} absorb={absorb}"
    assert values(text, grays) == expected


def test_a_pixel_is_foreground_if_one_of_its_channels_is() -> None:
    frames: list[Image] = [np.full((4, 6, 3), 90, np.uint8) for _ in range(81)]
    frames[-1][0, 0, 2] = 200
    mask = stream("background", frames)[-1]
    assert mask.shape == (4, 6)
    assert np.argwhere(mask).tolist() == [[0, 0]]


def test_mog2_marks_a_new_thing() -> None:
    frames = [flat(100)] * 60
    thing = flat(100)
    thing[1, 1] = 250
    assert np.argwhere(stream("mog2", [*frames, thing])[-1]).tolist() == [[1, 1]]


@pytest.mark.parametrize("name", ["diff", "median_of", "average", "background", "mog2"])
def test_a_single_image_is_refused_with_the_command_for_streams(name: str) -> None:
    (stage,) = split_stages(parse(name), Spec(4, 6))
    for run in (
        lambda: run_whole(parse(name), flat(1), flat(1)),
        lambda: pipeline.run_tile(stage.operators, flat(1), SIZE, Seams()),
    ):
        with pytest.raises(OperatorError, match=f"{name} compares .* needs a stream.*fog-gateway"):
            run()


def test_post_takes_no_operator_with_memory() -> None:
    with pytest.raises(PipelineError, match="post: diff compares frames of a stream"):
        parse_post("diff")


def test_knn_is_refused_by_name_with_the_reason() -> None:
    with pytest.raises(PipelineError, match=r"knn.*random numbers.*use 'mog2', or"):
        parse("gray | knn")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("median_of frames=4", "frames=4: expected an odd number from 3 to 15"),
        ("average rate=0", "rate=0: expected 1 to 12"),
        ("background threshold=17", "threshold=17: expected 1 to 16"),
        ("background noise=0", "noise=0: expected 1 to 64"),
        ("background absorb=16", "absorb=16: expected 1 to 15"),
        ("mog2 history=0", "history=0: expected 1 to 100000"),
    ],
)
def test_a_parameter_out_of_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_a_pipeline_remembers_what_its_operators_remember_together() -> None:
    assert memory_needs(parse("gray | canny")) is None
    windows = memory_needs(parse("diff | median_of frames=5"))
    assert windows is not None
    assert (windows.kind, windows.window) == ("window", 5)
    copied = memory_needs(parse("diff | background"))
    assert copied is not None
    assert (copied.kind, copied.window) == ("recursive", None)
    opaque = memory_needs(parse("average | mog2"))
    assert opaque is not None
    assert opaque.kind == "opaque"


def moved(memory: FrameMemory, text: str, size: Rect = SIZE) -> FrameMemory:
    return load_memory(memory.save(), parse(text), size)


@pytest.mark.parametrize("text", ["diff", "median_of | average", "gray | background rate=2"])
def test_a_memory_can_move_between_any_two_frames(text: str) -> None:
    rng = np.random.default_rng(2)
    shape = (4, 6, 3) if "gray" in text else (4, 6)
    memory, other = FrameMemory(), FrameMemory()
    for count in range(9):
        frame: Image = rng.integers(0, 256, shape, dtype=np.uint8)
        other = moved(other, text) if count else other
        expected = memory.run_tile(parse(text), frame, SIZE, Seams(), count)
        actual = other.run_tile(parse(text), frame, SIZE, Seams(), count)
        assert np.array_equal(np.asarray(actual), np.asarray(expected))


def test_the_memory_of_mog2_cannot_be_copied() -> None:
    memory = FrameMemory()
    memory.run_whole(parse("mog2"), flat(3), flat(3), 0)
    with pytest.raises(OperatorError, match="a memory that cannot be copied"):
        memory.save()


def test_a_memory_of_other_tiles_or_operators_is_refused() -> None:
    memory = FrameMemory()
    memory.run_whole(parse("average"), flat(3), flat(3), 0)
    with pytest.raises(WireError, match="does not fit 9x9 pixels"):
        moved(memory, "average", Rect(0, 0, 9, 9))
    with pytest.raises(WireError, match="operator 1 of the stage has no memory to load"):
        moved(memory, "gray")
    with pytest.raises(WireError, match="operator 1 of the stage has no memory to load"):
        moved(memory, "mog2")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91\x92\x00\x91\x93\x92\x04\x06\xa5uint8\xc4\x03abc",  # too few bytes
        b"\x91\x92\x00\x91\x93\x92\x04\x00\xa5uint8\xc4\x00",  # a side of 0
        b"\x91\x92\x00\x91\x93\x92\x04\x06\xa6object\xc4\x00",  # no dtype
        b"\x91" * 5000,
    ],
)
def test_bytes_that_are_no_memory_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        load_memory(data, parse("average"), SIZE)


def test_a_result_is_never_the_memory_itself() -> None:
    for text in ("diff", "median_of frames=3", "average", "background", "mog2"):
        memory = FrameMemory()
        frames = [flat(10), flat(200), flat(60)]
        results = [memory.run_whole(parse(text), one, one, at) for at, one in enumerate(frames)]
        kept = [np.array(one) for one in results]
        for one in frames:
            one[:] = 0
        memory.run_whole(parse(text), flat(99), flat(99), 3)
        for before, now in zip(kept, results, strict=True):
            assert np.array_equal(before, np.asarray(now)), text
