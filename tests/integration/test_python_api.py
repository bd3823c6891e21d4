"""The Python API with real devices: its page, examples and notebook, and what a cancel does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import nbclient
import nbformat
import pytest

import fogmqtt
from fogmqtt.client.fog import Fog
from tests.fog import wait_for
from tests.processes import Fog as Processes
from tests.processes import edges_of, forget_gateways, photo, read, same

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGES = (ROOT / "docs/python.md", ROOT / "README.md")


@pytest.fixture(scope="module")
def folder(fleet: Processes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with a configuration, photographs and a video."""
    made = tmp_path_factory.mktemp("program")
    (made / "config.yaml").write_text(f"broker: {{url: '{fleet.broker.url}', embedded: never}}\n")
    (made / "photos").mkdir()
    for number, name in enumerate(("photo.jpg", "other.jpg", "photos/a.png", "photos/b.png")):
        assert cv2.imwrite(str(made / name), photo(240, 320, number))
    (made / "photos/c.png").write_bytes(b"no image")
    video = cv2.VideoWriter(
        str(made / "video.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240)
    )
    for _ in range(12):
        video.write(photo(240, 320))
    video.release()
    yield made
    forget_gateways(fleet.broker)


@pytest.fixture
def fog(folder: Path) -> Iterator[Fog]:
    with fogmqtt.connect(folder / "config.yaml") as made:
        yield made


def python(*arguments: str | Path, cwd: Path) -> str:
    """What a program prints; it must succeed, and print no warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_every_line_of_the_pages_runs(folder: Path, fleet: Processes) -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 9
    page = folder / "page.py"
    page.write_text("\n".join((f"BROKER = {fleet.broker.url!r}", *blocks)), "utf-8")
    out = python(page, cwd=folder)
    assert "column 8: no operator is called 'cany'; did you mean 'canny'?" in out
    assert same(read(folder / "edges.png"), edges_of(folder / "photo.jpg"))


def test_the_example_finds_edges_on_the_devices(folder: Path) -> None:
    out = python(EXAMPLES / "edges.py", "photo.jpg", "found.png", cwd=folder)
    assert same(read(folder / "found.png"), edges_of(folder / "photo.jpg"))
    assert "photo.jpg: gray | canny low=50 high=150: " in out


def test_the_example_measures_a_folder_and_outlives_a_damaged_image(folder: Path) -> None:
    lines = python(EXAMPLES / "folder.py", "photos", cwd=folder).splitlines()
    assert [line.partition(",")[0] for line in lines] == ["a.png", "b.png", "c.png"]
    assert all(line.partition(",")[2].isdigit() for line in lines[:2])
    assert "not an image" in lines[2]


def test_the_example_runs_several_pipelines_at_once(folder: Path) -> None:
    lines = python(EXAMPLES / "several.py", "photo.jpg", "local", cwd=folder).splitlines()
    assert lines == [
        "gray | canny (240, 320)",
        "median ksize=9 (240, 320, 3)",
        "clahe (240, 320, 3)",
    ]


def test_tiles_are_done_by_devices_bit_for_bit(fog: Fog) -> None:
    image = photo()
    job = fog.submit(image, "edges", tiles="grid 3x4", verify=True)
    assert same(job.result(60), cv2.Canny(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 50, 150))
    assert job.report.differ == 0
    assert sum(share.tiles for share in job.report.devices.values()) == 12
    assert {"eya", "oumayma", "manar"} <= {device.id for device in fog.devices().online}
    assert "<td>eya</td><td>online</td>" in fog.devices()._repr_html_()


def test_cancel_takes_the_tiles_back_from_the_devices(lone_fog: Processes) -> None:
    lone_fog.settings["DEVICE__CHECKIN_S"] = "0.5"  # tells the tiles that it holds
    lone_fog.fleet("eya", speed=20_000)
    with fogmqtt.connect(broker=lone_fog.broker.url) as fog:
        job = fog.submit(photo(400, 400), "invert", tiles="grid 4x4")
        wait_for(lambda: held(fog) > 0, within=30, what="tiles at the device")
        assert job.cancel()
        wait_for(lambda: held(fog) == 0, within=30, what="an idle device")


def held(fog: Fog) -> int:
    return sum(device.tiles_held for device in fog.devices())


def test_a_broker_that_comes_back_finishes_the_job(lone_fog: Processes) -> None:
    lone_fog.fleet("eya", speed=200_000)
    with fogmqtt.connect(broker=lone_fog.broker.url) as fog:
        image = photo(400, 400)
        job = fog.submit(image, "invert", tiles="grid 4x4")
        wait_for(lambda: job.progress.done > 0, within=30, what="a tile")
        lone_fog.broker.kill()
        lone_fog.broker.start()
        assert same(job.result(60), 255 - image)


def test_the_notebook_runs_in_a_kernel(tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    nbclient.NotebookClient(notebook, timeout=120, resources=at(tmp_path)).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output["data"] for output in outputs if output.output_type == "execute_result"]
    tables = [data["text/html"] for data in shown if "text/html" in data]
    assert "<td>local</td><td>online</td>" in tables[0]
    assert "0 values differ from one machine" in tables[1]
    bars = [output["text"] for output in outputs if output.output_type == "stream"]
    assert any("100%" in text for text in bars), "tqdm's bars"


def test_an_interrupted_cell_leaves_the_fog_usable(tmp_path: Path) -> None:
    cells = [
        "import fogmqtt, numpy as np\nfog = fogmqtt.connect('local')",
        "large = np.zeros((2000, 2000, 3), np.uint8)\n"
        "fog.run(large, 'denoise h=10 template=9 search=35', tiles='grid 20x20')",
        "print(fog.run(large[:9, :9], 'invert').min(), fog)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    nbclient.NotebookClient(
        notebook,
        # The client interrupts the second cell, as the button of a notebook does.
        timeout_func=lambda cell: 2 if "denoise" in cell.source else 120,
        interrupt_on_timeout=True,
        allow_errors=True,
        resources=at(tmp_path),
    ).execute()
    # IPython prints only the name if another interrupt comes while it formats the traceback.
    assert "KeyboardInterrupt" in str(notebook.cells[1].outputs)
    (last,) = notebook.cells[2].outputs
    assert last["text"].startswith("255 <Fog at this machine")


def at(folder: Path) -> dict[str, Any]:
    return {"metadata": {"path": str(folder)}}
