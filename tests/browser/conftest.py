"""A real Chromium before a real fleet: broker, gateway, devices and dashboard, all processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, sync_playwright

from tests.browser.rig import PATIENCE_MS, SPEED, Open, Served, Tab, start_dashboard
from tests.fog import mosquitto, need
from tests.processes import DEVICES, private_fog

_FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one module: its event loop would hinder those of other tests."""
    program = shutil.which("chromium")
    need(program, "Chromium", "make chromium")
    # Root may not have a sandbox.
    flags = [*_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else _FLAGS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    need(mosquitto(), "Mosquitto", "make broker")
    with private_fog(tmp_path_factory.mktemp("fog")) as fog:
        gateway = fog.serve()
        dashboard, url = start_dashboard(fog)
        devices = dict(zip(DEVICES, fog.fleet(speed=SPEED), strict=True))
        yield Served(fog, url, dashboard, gateway, devices)


@pytest.fixture
def open_tab(chromium: Browser) -> Iterator[Open]:
    """Open tabs, each with cookies of its own. A script that fails in one fails the test."""
    contexts: list[tuple[BrowserContext, Tab]] = []

    def open_one(url: str, *, width: int = 1280, height: int = 860, **options: Any) -> Tab:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        tab = Tab(context.new_page(), url, [])
        tab.page.on("pageerror", lambda error: tab.problems.append(_told(error, tab)))
        contexts.append((context, tab))
        return tab

    yield open_one
    for context, _ in contexts:
        context.close()
    for _, tab in contexts:
        assert not tab.problems, "scripts of the page failed:\n" + "\n".join(tab.problems)


def _told(error: Error, tab: Tab) -> str:
    """Where and how a script failed; also a promise that nobody waited for."""
    return f"{error.name}: {error.message}\nat {tab.page.url}\n{error.stack}"


@pytest.fixture
def tab(open_tab: Open, served: Served) -> Tab:
    return open_tab(served.url)
