"""The modules of the page that need no browser, tested by Node."""

import shutil
import subprocess
from pathlib import Path

from tests.fog import need

ROOT = Path(__file__).parents[2]


def test_the_models_of_the_page_do_what_their_tests_say():
    need(shutil.which("node"), "Node", "make node")
    files = sorted(map(str, (ROOT / "tests/page").glob("*.test.mjs")))
    command = ["node", "--test", *files]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout
