"""The wall of streams in a real browser, before a real camera, broker, gateway and dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.rig import Open, start_dashboard
from tests.cameras import WebCamera
from tests.fog import mosquitto, need
from tests.processes import Fog, private_fog

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

#: More than the connections that a browser opens to one server.
CAMERAS = ("barn", "gate", "hall", "lane", "porch", "roof", "shed", "yard")


@dataclass
class Wall:
    fog: Fog
    url: str
    camera: WebCamera


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wall]:
    need(mosquitto(), "Mosquitto", "make broker")
    with (
        WebCamera(fps=5) as camera,
        private_fog(tmp_path_factory.mktemp("wall"), GATEWAY__LOCAL="always") as fog,
    ):
        one = {"source": camera.url("/stream"), "pipeline": "invert", "max_age_s": 20, "stall_s": 3}
        streams = {name: {**one, "fps": 2} for name in CAMERAS}
        streams["yard"]["enabled"] = False
        path = fog.folder / "config.yaml"
        path.write_text(json.dumps({"streams": streams, "dashboard": {"enabled": "never"}}))
        fog.serve_with(path)
        _, url = start_dashboard(fog)
        yield Wall(fog, url, camera)


def test_more_cameras_than_a_browser_has_connections_are_live_on_one_page(
    open_tab: Open, wall: Wall
) -> None:
    tab = open_tab(wall.url, height=2600)
    tab.go("#/streams")
    tab.page.wait_for_selector(".stream")
    tab.until(
        "count => [...document.querySelectorAll('.stream canvas')]"
        ".filter(one => one.frames >= 3).length === count",
        len(CAMERAS) - 1,
    )
    tab.sees("It is switched off.")
    tab.sees("Runs.")
    tab.sees("age p99")
    tab.page.set_viewport_size({"width": 1280, "height": 1200})
    tab.shoot("streams")


def test_one_stream_is_opened_by_keyboard_and_says_what_was_dropped(
    open_tab: Open, wall: Wall
) -> None:
    tab = open_tab(wall.url)
    tab.go("#/streams")
    tab.page.get_by_role("link", name="barn").focus()
    tab.page.keyboard.press("Enter")
    tab.until("() => document.querySelector('.large canvas')?.frames >= 2")
    assert tab.page.evaluate("() => document.querySelector('.large canvas').width") == 320
    tab.page.get_by_text("Frames", exact=True).press("Enter")
    tab.sees("over the limit of fps")
    tab.shoot("stream")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_wall_fits_a_phone_and_the_rules_of_accessibility_find_nothing_serious(
    open_tab: Open, wall: Wall, scheme: str
) -> None:
    tab = open_tab(wall.url, width=390, height=844, color_scheme=scheme, is_mobile=True)
    tab.go("#/streams")
    tab.until("() => document.querySelector('.stream canvas')?.frames >= 1")
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    tab.shoot(f"phone-streams-{scheme}")
    found = Axe().run(tab.page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_a_camera_that_is_gone_is_no_frozen_picture(open_tab: Open, wall: Wall) -> None:
    tab = open_tab(wall.url)
    tab.go("#/streams/gate")
    tab.until("() => document.querySelector('.large canvas')?.frames >= 1")
    wall.camera.stop()
    try:
        tab.sees("No new frame for")
        tab.page.locator(".large .badge", has_text="Away").wait_for()
        tab.shoot("stream-away")
    finally:
        wall.camera.restart()
    tab.page.locator(".large .badge", has_text="Live").wait_for()
