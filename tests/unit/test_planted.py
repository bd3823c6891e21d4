"""The bugs of `make mutations` can still be planted: each names one place in today's sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutations import NotPlantedError, planted
from tests.planted import BUGS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_fits_into_the_source_exactly_once_and_changes_it(bug):
    source = planted(bug, ROOT)
    assert source != (ROOT / bug.path).read_text("utf-8")
    compile(source, bug.path, "exec")


def test_no_two_bugs_have_the_same_name():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20


@pytest.mark.parametrize("old", ["no such text", "self"])
def test_a_text_that_is_not_there_exactly_once_is_an_error_that_names_the_bug(old):
    with pytest.raises(NotPlantedError, match=f"^{BUGS[0].name}: "):
        planted(replace(BUGS[0], old=old), ROOT)
