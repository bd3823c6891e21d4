"""What the tests of the page share: a served fog, and a tab of a browser that shows its page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.fog import free_port
from tests.processes import Fog, Program

#: Screenshots that the tests make, to be looked at.
PICTURES = Path(__file__).with_name("screenshots")
#: Pixels that an emulated device does in a second: slow enough to see a picture fill in.
SPEED = 4e5
#: Milliseconds for what takes a moment; a busy machine needs more.
PATIENCE_MS = 30_000


@dataclass(frozen=True)
class Served:
    """A fog with a dashboard."""

    fog: Fog
    url: str
    dashboard: Program
    gateway: Program
    devices: dict[str, Program]


def start_dashboard(fog: Fog, **settings: str) -> tuple[Program, str]:
    """Start `fog-dashboard`, and wait until it listens. Returns its address, too."""
    listen = f"127.0.0.1:{free_port()}"
    command = ["-m", "fogmqtt.cli.dashboard", "--listen", listen]
    program = fog._start("dashboard", command, settings)
    program.says("the page is at")
    return program, f"http://{listen}/"


@dataclass
class Tab:
    """A tab of the browser with the page, and what went wrong in it."""

    page: Page
    url: str
    problems: list[str]

    def go(self, fragment: str) -> None:
        """Go to a place of the page, and wait until it is there."""
        if self.page.url.startswith(self.url):
            self.page.evaluate("place => { location.hash = place; }", fragment)
        else:
            self.page.goto(self.url + fragment)
        self.page.wait_for_selector("#heading")

    def until(self, expression: str, argument: Any = None) -> None:
        """Wait until an expression of JavaScript is true."""
        self.page.wait_for_function(expression, arg=argument, timeout=PATIENCE_MS)

    def sees(self, text: str | re.Pattern[str], within: str = "main") -> None:
        """Wait until a part of the page contains a text."""
        self.page.locator(within).get_by_text(text).first.wait_for(timeout=PATIENCE_MS)

    def shoot(self, name: str) -> None:
        PICTURES.mkdir(exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")


Open = Callable[..., Tab]
