"""All modules of the page as one: the same names, in the right order, and no guesses."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fogmqtt.dashboard.joined_modules import ModuleError, join_modules
from tests.fog import need

PAGE = Path(__file__).parents[2] / "fogmqtt/dashboard/static"


def joined(**modules: str) -> str:
    """Join modules that are given as `app="…"`."""
    return join_modules("app.js", lambda path: modules[path.removesuffix(".js").replace("/", "_")])


def said(script: str) -> object:
    """What a script prints as JSON."""
    need(shutil.which("node"), "Node", "make node")
    command = ["node", "--input-type=module", "--eval", script]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_each_form_of_import_and_export_means_what_it_meant():
    script = joined(
        app="""// The entry.
import { twice, Thing as Other } from "./model/one.js";
import * as all from "./model/one.js";
import {
  shout,
} from "./model/two.js";
import tag from "./lib.js";

const names = Object.keys(all).sort();
console.log(JSON.stringify([twice(4), new Other().name, all.LIMIT, shout(tag(2)), names]));
""",
        model_one="""/* Numbers. */
export const LIMIT = 3;
export function twice(value) {
  return value * 2;
}
export class Thing {
  name = "thing";
}
""",
        model_two="""// Words.
import { twice } from "./one.js";
export async function late() {}
export const shout = (value) => `${twice(value)}!`;
""",
        lib="var n=1;function f(a){return a+n}export default function(s){return f(s)}"
        "//# sourceMappingURL=lib.js.map",
    )
    assert said(script) == [8, "thing", 3, "6!", ["LIMIT", "Thing", "twice"]]


def test_lists_of_exports_and_names_that_are_passed_on():
    script = joined(
        app='import{a as x,b,c}from"./one.js";console.log(JSON.stringify([x,b,c]))',
        one='import{z as q}from"./two.js";export{b,c}from"./two.js";const y=q+1;export{y as a};',
        two="const z=1,b=2;let c=3;export{z,b,c};",
    )
    assert said(script) == [2, 2, 3]


def test_a_module_that_two_others_import_runs_once():
    script = joined(
        app='import { a } from "./one.js";\nimport { b } from "./two.js";\n'
        "console.log(JSON.stringify(a === b));",
        one='import { a } from "./base.js";\nexport { a };\n',
        two='import { a as b } from "./base.js";\nexport { b };\n',
        base="export const a = {};\n",
    )
    assert said(script) is True


@pytest.mark.parametrize(
    "text",
    [
        'import "./one.js";',
        "const late = await import('./one.js');",
        "export let changes = 1;",
        "export const { a, b } = one;",
        "export default 7;",
        'export * from "./one.js";',
        "const here = import.meta.url;",
        'const a = 1;\nimport { b } from "./one.js";',
    ],
)
def test_a_form_that_is_not_known_is_named(text):
    with pytest.raises(ModuleError, match=r"app\.js: .* cannot be joined"):
        joined(app=text, one="export const a = 1, b = 2;")


@pytest.mark.parametrize("path", ["preact", "/one.js", "https://example.org/one.js", "../one.js"])
def test_only_modules_of_the_page_are_joined(path):
    with pytest.raises(ModuleError, match="is not a module of the page"):
        joined(app=f'import {{ a }} from "{path}";')


def test_modules_that_import_each_other_are_refused():
    with pytest.raises(ModuleError, match=r"app\.js imports itself by way of app\.js, one\.js"):
        joined(app='import { a } from "./one.js";', one='import { b } from "./app.js";')


def test_a_line_keeps_its_distance_from_the_name_of_its_module():
    script = joined(
        app='import {\n  a,\n} from "./one.js";\nhere();\n', one="export const a = 1;\n"
    )
    lines = script.splitlines()
    # One line is added, the begin of the function.
    assert lines.index("here();") - lines.index("// app.js") == 3 + 2


def test_the_modules_of_the_page_keep_their_names():
    script = join_modules("app.js", lambda path: (PAGE / path).read_text("utf-8"))
    modules = [path for path in sorted(PAGE.rglob("*.js")) if path.name != "app.js"]
    names = [str(path.relative_to(PAGE)) for path in modules]
    assert all(f"\n// {name}\n" in script for name in names), "a module that no other one imports"
    # Those that need no browser run here; the tests in a browser run all.
    models = [name for name in names if name.startswith(("model/", "vendor/"))]
    base = PAGE.as_uri()
    check = (
        script.partition("// state.js\n")[0]
        + f"""
const names = {{}};
for (const name of {json.dumps(models)}.filter((one) => $modules[one])) {{
  const real = Object.keys(await import(`{base}/${{name}}`)).sort();
  names[name] = JSON.stringify(real) === JSON.stringify(Object.keys($modules[name]).sort());
}}
console.log(JSON.stringify(names));
"""
    )
    found = said(check)
    assert isinstance(found, dict)
    assert len(found) > 8
    assert all(found.values()), found
