"""Whatever the image, operator and fleet: a plan's messages fit, or it says that none does."""

import re

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import cut
from fogmqtt.core.tiling import HEADER_BYTES, MOST_TIMES_SENT, auto_plan, check_plan
from fogmqtt.errors import PlanError

sides = st.integers(1, 700)
cases = st.fixed_dictionaries(
    {
        "sent_pixel_bytes": st.sampled_from([1, 2, 3, 6, 0.5]),
        "result_pixel_bytes": st.sampled_from([1, 3, 4, 16, 0.25]),
        "limit_bytes": st.integers(1500, 60_000),
        "halo": st.integers(0, 40),
        "align": st.sampled_from([1, 64]),
    }
)


@settings(deadline=None)
@given(height=sides, width=sides, workers=st.integers(0, 12), case=cases)
def test_every_message_of_an_automatic_plan_fits(height, width, workers, case):
    try:
        plan = auto_plan((height, width), workers=workers, **case)
    except PlanError:
        assume(False)
    tiles = cut((height, width), plan, halo=case["halo"], align=case["align"])
    room = case["limit_bytes"] - HEADER_BYTES
    assert all(tile.outer.pixels * case["sent_pixel_bytes"] <= room for tile in tiles)
    assert all(tile.core.pixels * case["result_pixel_bytes"] <= room for tile in tiles)
    check_plan(tiles, **case)


@settings(deadline=None)
@given(height=sides, width=sides, workers=st.integers(0, 12), case=cases)
def test_a_refusal_means_that_the_smallest_whole_tile_does_not_fit(height, width, workers, case):
    try:
        auto_plan((height, width), workers=workers, **case)
    except PlanError as refusal:
        assume("no tile fits" in str(refusal))
        halo, align = case["halo"], case["align"]
        reach = -(-halo // align) * align
        side = max(align + 2 * reach, 2 * align - 1)
        room = case["limit_bytes"] - HEADER_BYTES
        outer = min(side, height) * min(side, width) * case["sent_pixel_bytes"]
        core = min(align, height) * min(align, width) * case["result_pixel_bytes"]
        assert max(outer, core) > room


@settings(deadline=None)
@given(height=sides, width=sides, workers=st.integers(0, 12), case=cases)
def test_no_plan_sends_an_image_absurdly_often(height, width, workers, case):
    try:
        plan = auto_plan((height, width), workers=workers, **case)
    except PlanError:
        assume(False)
    tiles = cut((height, width), plan, halo=case["halo"], align=case["align"])
    sent = sum(tile.outer.pixels for tile in tiles)
    # What the plan reckons with leaves out that rows and columns round up to whole tiles.
    assert sent <= 1.5 * MOST_TIMES_SENT * height * width


@settings(deadline=None)
@given(height=sides, width=sides, workers=st.integers(0, 12), case=cases)
def test_the_limit_that_a_refusal_names_is_enough(height, width, workers, case):
    try:
        auto_plan((height, width), workers=workers, **case)
    except PlanError as refusal:
        enough = re.search(r"max_message_bytes .* to (\d+)", str(refusal))
        assert enough is not None
        auto_plan((height, width), workers=workers, **{**case, "limit_bytes": int(enough[1])})


@settings(deadline=None)
@given(height=sides, width=sides, workers=st.integers(0, 12), case=cases)
def test_the_same_question_has_the_same_answer(height, width, workers, case):
    answers = []
    for _ in range(2):
        try:
            answers.append(auto_plan((height, width), workers=workers, **case))
        except PlanError as refusal:
            answers.append(str(refusal))
    assert answers[0] == answers[1]
