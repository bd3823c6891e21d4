"""What the pages name exists: linked files, tests and paths of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fogmqtt.operators.api import registry

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(
        ROOT / folder / "README.md"
        for folder in ("benchmarks", "broker", "containers", "devices", "examples/device-js")
    ),
]


def heading_ids(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in heading_ids(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_and_file_that_a_page_names_exists(page: Path) -> None:
    missing = []
    for path, name in re.findall(
        r"`((?:tests|fogmqtt|benchmarks|examples)/[\w./-]+)(?:::(\w+))?`", page.read_text("utf-8")
    ):
        file = ROOT / path
        if not file.exists() or (name and f"def {name}(" not in file.read_text("utf-8")):
            missing.append(f"{path}::{name}" if name else path)
    assert missing == []


def test_the_index_of_decisions_lists_each_page_once_with_its_title() -> None:
    folder = ROOT / "docs/decisions"
    listed = re.findall(
        r"^- \[(\d{3})\]\(([^)]+)\) (.+)$", (folder / "README.md").read_text(), re.MULTILINE
    )
    titles = [
        (page.name[:3], page.name, page.read_text("utf-8").splitlines()[0])
        for page in sorted(folder.glob("[0-9]*.md"))
    ]
    assert sorted((number, name, f"# {number} {title}") for number, name, title in listed) == titles


def test_the_readme_says_how_many_operators_there_are() -> None:
    (number,) = re.findall(r"`fog-gateway operators` lists (\d+)", (ROOT / "README.md").read_text())
    assert int(number) == len(registry.names())
