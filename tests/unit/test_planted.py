"""Every bug of `make mutations` can be planted: its function contains its code exactly once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.planted import BUGS, Bug
from tests.planting import NotPlantedError, plant, plant_in_source

ROOT = Path(__file__).parents[2]

SOURCE = '''
class Counter:
    """Counts."""

    def add(self, amount):
        # Nobody counts backwards.
        if amount < 0:
            raise ValueError("amount is negative")
        self.total = max(
            self.total,
            self.total + amount,
        )
        self.calls += 1

    def reset(self):
        for name in ("total", "calls"):
            setattr(self, name, 0)


def total(counter):
    return counter.total
'''


def make_bug(function: str, old: str, new: str) -> Bug:
    return Bug("wrong", "something goes wrong", "shop.counter", function, old, new)


def planted(function: str, old: str, new: str) -> str:
    return plant_in_source(make_bug(function, old, new), SOURCE)


def same_code(one: str, other: str) -> bool:
    return ast.unparse(ast.parse(one)) == ast.unparse(ast.parse(other))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_be_planted_and_changes_its_module(bug):
    mutant = plant(bug, ROOT)
    compile(mutant, bug.path, "exec")
    assert not same_code(mutant, (ROOT / bug.path).read_text("utf-8"))


def test_no_two_bugs_have_the_same_name():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20


def test_an_expression_is_replaced_whatever_its_formatting():
    mutant = planted("Counter.add", "max(self.total, (self.total + amount))", "self.total")
    expected = """self.total = max(
            self.total,
            self.total + amount,
        )"""
    assert same_code(mutant, SOURCE.replace(expected, "self.total = self.total"))


def test_statements_are_replaced_whatever_stands_between_them():
    old = """
        if amount < 0:  # another comment
            raise ValueError('amount is negative')
        self.total = max(self.total, self.total + amount)
    """
    mutant = planted("Counter.add", old, "self.total += amount")
    assert "ValueError" not in mutant
    assert "        self.total += amount\n        self.calls += 1\n" in mutant


def test_one_statement_can_become_two():
    mutant = planted("total", "return counter.total", "counter.calls += 1\nreturn counter.total")
    assert mutant.endswith("def total(counter):\n    counter.calls += 1\n    return counter.total")


@pytest.mark.parametrize(
    ("function", "old"),
    [("Counter.add", "self.calls += 1"), ("Counter.reset", "setattr(self, name, 0)")],
    ids=["one of several statements", "the only statement of a block"],
)
def test_an_empty_new_removes_a_statement(function, old):
    mutant = planted(function, old, "")
    assert old not in mutant
    compile(mutant, "mutant", "exec")


def test_only_the_named_function_changes():
    mutant = planted("total", "counter.total", "0")
    assert same_code(mutant, SOURCE.replace("return counter.total", "return 0"))


@pytest.mark.parametrize(
    ("function", "old", "new", "why"),
    [
        ("Counter.subtract", "1", "2", "shop.counter has no function named Counter.subtract"),
        ("Counter", "1", "2", "shop.counter has no function named Counter"),
        ("add", "amount", "0", "shop.counter has no function named add"),
        (
            "Counter.add",
            "self.count += 1",
            "",
            "Counter.add in shop/counter.py does not contain this code:\nself.count += 1",
        ),
        (
            "Counter.add",
            "self.total",
            "0",
            "Counter.add in shop/counter.py contains this code 2 times; add the code around it "
            "to `old` and `new` until only one place fits:\nself.total",
        ),
        ("total", "return", "", "total in shop/counter.py does not contain this code:\nreturn"),
        ("total", "", "pass", "`old` is empty; name the code that the bug changes"),
        ("total", "counter.total", "(counter.total)", "`old` and `new` are the same code"),
        ("total", "counter.", "0", "`old` is not Python: "),
        ("total", "counter.total", "if", "`new` is not Python: "),
    ],
)
def test_a_bug_that_does_not_fit_is_an_error_that_names_it(function, old, new, why):
    with pytest.raises(NotPlantedError) as error:
        planted(function, old, new)
    assert str(error.value).startswith(f"wrong: {why}")


def test_two_functions_of_the_same_name_are_an_error():
    with pytest.raises(NotPlantedError, match="has 2 functions named total"):
        plant_in_source(
            make_bug("total", "counter.total", "0"), SOURCE + "\ndef total(counter): ...\n"
        )


def test_a_missing_module_is_an_error():
    with pytest.raises(NotPlantedError, match="wrong: there is no file shop"):
        plant(make_bug("total", "counter.total", "0"), ROOT)
