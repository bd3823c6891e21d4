"""The page docs/brokers.md says what the newest run on each broker found, and no more."""

from __future__ import annotations

from pathlib import Path

from tests.brokers.kinds import KINDS, Aedes, Mosquitto
from tests.brokers.page import Row, is_complete, load, merged, page, save
from tests.brokers.trials import TRIALS, Outcome

GOOD = Row("mosquitto", "5", "2.0.11", dict.fromkeys(TRIALS, Outcome("ok", "exact")))
BAD = Row("aedes", "3.1.1", "1.2.0", {"a": Outcome("fault", "a|b"), "f": Outcome("limit", "twice")})


def test_a_line_has_a_cell_for_each_trial_and_tells_limits_from_faults() -> None:
    lines = page([GOOD, BAD], KINDS).splitlines()
    assert "| Mosquitto 2.0.11 | 5 | exact | exact | exact | exact | exact | exact |" in lines
    cells = r"**fault**: a\|b | not run | not run | not run | not run | limit: twice"
    assert f"| aedes 1.2.0 | 3.1.1 | {cells} |" in lines
    assert f"| Mosquitto | {Mosquitto.source} | 2.0.11 | {Mosquitto.settings} |" in "\n".join(lines)


def test_a_broker_that_was_not_tried_is_not_named() -> None:
    assert Aedes.source not in page([GOOD], KINDS)


def test_every_trial_is_explained_by_its_letter() -> None:
    assert list(TRIALS) == list("abcdef")
    for letter, trial in TRIALS.items():
        assert trial.__doc__ is not None
        assert trial.__doc__.startswith(f"{letter}: ")


def test_a_new_result_replaces_the_old_one_of_the_same_broker_and_version_of_mqtt() -> None:
    older = Row("mosquitto", "5", "1.0", {})
    other = Row("mosquitto", "3.1.1", "1.0", {})
    assert merged([older, other, BAD], [GOOD]) == [other, BAD, GOOD]


def test_the_page_is_complete_with_a_row_for_each_broker_and_version_of_mqtt() -> None:
    rows = [Row(kind.key, str(one), "1") for kind in KINDS for one in kind.protocols]
    assert is_complete(rows, KINDS)
    assert not is_complete(rows[1:], KINDS)


def test_results_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert load(path) == []
    save(path, [GOOD, BAD])
    assert load(path) == [GOOD, BAD]


def test_every_kind_of_broker_has_a_name_of_its_own() -> None:
    assert len({kind.key for kind in KINDS}) == len(KINDS)
    assert all(kind.title and kind.source and kind.settings for kind in KINDS)
