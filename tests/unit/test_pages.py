"""Files with several pages: one job does all of them, and the result has as many."""

from __future__ import annotations

import numpy as np
import pytest

from fogmqtt.errors import ImageError
from fogmqtt.gateway.events import JobNoticed
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.images.encode import encode
from fogmqtt.images.metadata import Pages
from fogmqtt.images.result_format import ResultFormat
from tests.corpus import bgr, colour, gray
from tests.gateway_rig import Rig, run

#: Pages of different sizes, channels and depths.
PAGES = (gray(), bgr(colour("uint16"))[:30], 255 - gray())
SCAN = encode(PAGES, ResultFormat("tiff")).data


def outcome_of(
    pipeline: str, pages: Pages = "all", *, verify: bool = False, notes: list[str] | None = None
) -> Outcome:
    async def test() -> Outcome:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            if notes is not None:
                gateway.listen("notes", lambda event: _collect(event, notes))
            request = JobRequest("scan.tif", pipeline, data=SCAN, pages=pages, verify=verify)
            return await gateway.submit(request).outcome()

    found: list[Outcome] = []

    async def keep() -> None:
        found.append(await test())

    run(keep())
    return found[0]


def _collect(event: object, notes: list[str]) -> None:
    if isinstance(event, JobNoticed):
        notes.append(event.text)


def inverted(page: np.ndarray) -> np.ndarray:
    return np.iinfo(page.dtype).max - page


def test_all_pages_are_processed_each_with_its_own_size_and_depth() -> None:
    notes: list[str] = []
    outcome = outcome_of("invert", notes=notes)
    assert outcome.error is None
    assert len(outcome.images) == len(PAGES)
    for image, page in zip(outcome.images, PAGES, strict=True):
        assert np.array_equal(image, inverted(page))
    assert np.array_equal(outcome.image, outcome.images[0])
    assert notes == ["3 pages; the result has as many"]
    assert outcome.report.pixels == sum(page.shape[0] * page.shape[1] for page in PAGES)


def test_one_page_is_processed_and_noted() -> None:
    for pages, number in (("first", 1), (3, 3)):
        notes: list[str] = []
        outcome = outcome_of("invert", pages, notes=notes)
        assert np.array_equal(outcome.image, inverted(PAGES[number - 1]))
        assert len(outcome.images) == 1
        assert notes == [f"page {number} of 3"]


def test_a_page_that_is_not_there_fails_the_job() -> None:
    assert outcome_of("invert", 4).error == "scan.tif: there is no page 4; the file has 3"


def test_stages_of_each_page_follow_each_other() -> None:
    outcome = outcome_of("gray | otsu | invert")
    assert outcome.error is None
    assert [image.shape for image in outcome.images] == [page.shape[:2] for page in PAGES]


def test_all_pages_are_compared_with_one_machine() -> None:
    outcome = outcome_of("median ksize=3", verify=True)
    assert (outcome.error, outcome.report.differ) == (None, 0)


def test_facts_are_told_for_each_page() -> None:
    outcome = outcome_of("stats")
    assert outcome.facts is not None
    assert len(outcome.facts["pages"]) == len(PAGES)
    assert outcome.facts["pages"][0] != outcome.facts["pages"][2]


def test_an_array_is_one_page() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            request = JobRequest("array", "invert", image=gray())
            outcome = await gateway.submit(request).outcome()
        assert len(outcome.images) == 1

    run(test())


def test_a_result_of_several_pages_needs_a_tiff() -> None:
    outcome = outcome_of("invert")
    with pytest.raises(ImageError, match=r"3 pages; write .tiff, or choose a page"):
        encode(outcome.images, ResultFormat("png"), outcome.metadata)
