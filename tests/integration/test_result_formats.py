"""Results of a serving gateway and of `run`: their format, their pages and their metadata."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms

from tests.corpus import colour, gray, pillow
from tests.fog import wait_for
from tests.processes import Fog, private_fog

pytestmark = pytest.mark.broker

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SCAN = np.stack([gray(), 255 - gray(), gray() // 2])


@pytest.fixture(scope="module")
def fog(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """A gateway that does the work itself, with a format for each pipeline."""
    del broker  # fails where Mosquitto is missing
    made = tmp_path_factory.mktemp("fog")
    (made / "gateway.yaml").write_text(
        "pipelines: {edges: gray | canny low=50 high=150, negative: invert, small: invert}\n"
        "pipeline: negative\n"
        "formats: {small: jpeg quality=20}\n"
    )
    with private_fog(made, GATEWAY__LOCAL="always") as running:
        gateway = running.serve_with(made / "gateway.yaml")
        gateway.says("mariem is online")
        yield running
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.said


def drop(fog: Fog, name: str, data: bytes, result: str) -> bytes:
    """Put a file into the inbox and return its result."""
    source = fog.folder / "inbox" / name
    source.parent.mkdir(parents=True, exist_ok=True)
    part = source.with_name(f".{source.name}")
    part.write_bytes(data)
    part.replace(source)
    path = fog.folder / "outbox" / result
    wait_for(path.exists, within=60, what=str(path))
    return path.read_bytes()


def scan() -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, SCAN, photometric="minisblack", metadata=None)
    return stream.getvalue()


def test_all_pages_of_a_scan_come_out_as_a_tiff(fog: Fog) -> None:
    result = drop(fog, "scan.tif", scan(), "scan.tiff")
    assert np.array_equal(tifffile.imread(io.BytesIO(result)), 255 - SCAN)


def test_a_pipeline_has_its_own_format_and_keeps_the_profile(fog: Fog) -> None:
    photo = pillow(colour(), "PNG", icc_profile=PROFILE, dpi=(300, 300))
    result = drop(fog, "small/photo.png", photo, "photo.jpeg")
    with Pillow.open(io.BytesIO(result)) as image:
        assert image.format == "JPEG"
        assert image.info["icc_profile"] == PROFILE
        assert image.info["dpi"] == (300, 300)
    usual = cv2.imencode(".jpg", 255 - colour())[1]
    assert len(result) - len(PROFILE) < len(usual)


def test_another_pipeline_has_the_usual_format(fog: Fog) -> None:
    result = drop(fog, "other.bmp", pillow(colour(), "BMP"), "other.png")
    assert result.startswith(b"\x89PNG")


def test_run_takes_a_format_and_a_page(fog: Fog, tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(scan())
    job = (tmp_path / "scan.tif", "--pipeline", "invert", "-o")
    out = tmp_path / "out.png"
    refused = fog.run(*job, out, code=1)
    assert "a png file holds one image, and this result has 3 pages" in refused.error
    fog.run(*job, out, "--pages", "2")
    assert np.array_equal(cv2.imread(str(out), cv2.IMREAD_UNCHANGED), SCAN[0])
    folder = tmp_path / "results"
    fog.run(*job, f"{folder}/", "--pages", "3", "--format", "jpeg quality=30")
    assert [path.name for path in folder.iterdir()] == ["scan.jpeg"]
    refused = fog.run(*job, out, "--format", "jpeg quality=30", code=2)
    assert "it is no jpeg file, which --format asks for" in refused.error
