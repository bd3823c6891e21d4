"""The files of the page: complete, small, without the internet, and fit for a strict policy."""

import gzip
import re
from pathlib import Path

import pytest

from fogmqtt.dashboard.joined_modules import join_modules

PAGE = Path(__file__).parents[2] / "fogmqtt/dashboard/static"
INDEX = (PAGE / "index.html").read_text("utf-8")
MODULES = sorted(PAGE.rglob("*.js"))
OWN = [path for path in MODULES if path.parent.name != "vendor"]
#: The bytes that a browser gets, compressed.
BUDGET = 80_000


def name(path: Path) -> str:
    return str(path.relative_to(PAGE))


def test_the_page_names_one_module_which_leads_to_all_others():
    assert re.findall(r'<script type="module" src="([^"]+)"', INDEX) == ["app.js"]
    read: list[str] = []

    def text(path: str) -> str:
        read.append(path)
        return (PAGE / path).read_text("utf-8")

    join_modules("app.js", text)
    assert sorted(read) == sorted(map(name, MODULES))


def test_the_page_is_smaller_than_its_budget():
    files = [path for path in PAGE.rglob("*") if path.suffix in (".js", ".css", ".html", ".svg")]
    size = sum(len(gzip.compress(path.read_bytes(), 9)) for path in files)
    assert size < BUDGET, f"{size} bytes"


def test_the_page_needs_no_exception_from_a_policy_that_forbids_inline_scripts_and_styles():
    assert "style=" not in INDEX
    assert "<style" not in INDEX
    assert re.findall(r"<script(?![^>]* src=)", INDEX) == []
    assert re.findall(r"\son[a-z]+=", INDEX) == []
    for path in OWN:
        text = path.read_text("utf-8")
        assert not re.search(r"\beval\(|new Function\(|\.innerHTML\s*=", text), name(path)


@pytest.mark.parametrize("path", [*OWN, PAGE / "index.html", PAGE / "page.css"], ids=name)
def test_a_file_of_the_page_names_no_other_host_and_no_path_from_the_root(path):
    text = path.read_text("utf-8").replace("https://example.org", "")
    assert re.findall(r"""["'`(]https?://[^"'`)]*""", text) == []
    assert re.findall(r"""(?:href|src|from|fetch\(|url\()\s*=?\s*["'`]/""", text) == []


@pytest.mark.parametrize("path", OWN, ids=name)
def test_a_module_says_in_its_first_line_what_it_is(path):
    assert re.match(r"// [A-Z].*", path.read_text("utf-8"))


def test_each_vendored_file_has_a_version_a_licence_and_no_import_from_elsewhere():
    table = (PAGE / "vendor/README.md").read_text("utf-8")
    for path in sorted((PAGE / "vendor").glob("*.js")):
        assert re.search(rf"\| {re.escape(path.name)} \| \S+ \| \d+\.\d+\.\d+ \|", table), path
        assert path.with_suffix(".LICENSE").is_file(), path
        imports = re.findall(r'from"([^"]+)"', path.read_text("utf-8"))
        assert all((path.parent / one).is_file() for one in imports), path
