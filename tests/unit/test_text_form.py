"""Images as base64 text and as data URIs are taken as what they are."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.config import LimitSettings
from fogmqtt.errors import ImageError
from fogmqtt.gateway.jobs.decode import Decoders
from fogmqtt.gateway.jobs.ingest import ingest
from fogmqtt.gateway.jobs.memory_budget import MemoryBudget
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.images.source import as_array
from fogmqtt.images.text_form import HEAD_BYTES, from_text, may_be_text
from tests.processes import photo

PICTURE = cv2.imencode(".jpg", photo(40, 60))[1].tobytes()
TEXT = base64.b64encode(PICTURE)

FORMS = {
    "base64": TEXT,
    "wrapped like mail": base64.encodebytes(PICTURE).replace(b"\n", b"\r\n"),
    "without padding": TEXT.rstrip(b"="),
    "URL-safe": base64.urlsafe_b64encode(PICTURE),
    "with a line break": TEXT + b"\n",
    "with a byte order mark": b"\xef\xbb\xbf" + TEXT,
    "a JSON string": json.dumps(TEXT.decode()).encode(),
    "a JSON string with escapes": b'"' + TEXT.replace(b"/", b"\\/") + b'"',
    "data URI": b"data:image/jpeg;base64," + TEXT,
    "data URI in a JSON string": b'"data:image/jpeg;base64,' + TEXT + b'"',
    "data URI in capitals": b"DATA:image/jpeg;BASE64," + TEXT,
    "data URI without a type": b"data:;base64," + TEXT,
    "data URI with a parameter": b"data:image/jpeg;name=in.jpg;base64," + TEXT,
    "data URI with escapes": b"data:image/jpeg;base64," + TEXT.replace(b"+", b"%2B"),
    "data URI with bytes": b"data:image/jpeg," + b"".join(b"%%%02x" % byte for byte in PICTURE),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_image(form: str) -> None:
    assert may_be_text(FORMS[form][:HEAD_BYTES])
    assert from_text(FORMS[form]) == PICTURE


@pytest.mark.parametrize(
    "data",
    [
        PICTURE,
        cv2.imencode(".png", photo(8, 8))[1].tobytes(),
        cv2.imencode(".bmp", photo(8, 8))[1].tobytes(),
        cv2.imencode(".webp", photo(8, 8))[1].tobytes(),
        cv2.imencode(".tiff", photo(8, 8))[1].tobytes(),
        b"P3\n1 1\n255\n1 2 3\n",
        b"P1 2 2 0 1 1 0\n",
        b"",
        b"{}",
    ],
)
def test_other_files_are_left_alone(data: bytes) -> None:
    assert not may_be_text(data[:HEAD_BYTES])


@pytest.mark.parametrize(
    "data", [b"data:image/png;base64", b"AAAAA", b"AAAA!", b'"AAAA', b"data:,"]
)
def test_what_is_neither_gives_nothing(data: bytes) -> None:
    assert not from_text(data)


@pytest.mark.parametrize("source", ["bytes", "file"])
@pytest.mark.parametrize("form", ["base64", "data URI"])
def test_a_job_takes_an_image_as_text(tmp_path: Path, source: str, form: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(FORMS[form])
    given = {"data": FORMS[form]} if source == "bytes" else {"path": path}
    image = taken(JobRequest("in", "invert", **given))  # type: ignore[arg-type]
    assert np.array_equal(image, cv2.imdecode(np.frombuffer(PICTURE, np.uint8), cv2.IMREAD_COLOR))


def test_text_that_is_no_image_is_refused_as_such() -> None:
    with pytest.raises(ImageError, match="in: not an image"):
        taken(JobRequest("in", "invert", data=b"hello world"))


def taken(request: JobRequest) -> object:
    decoders, memory = Decoders(), MemoryBudget(1e9).reservation()
    try:
        return as_array(ingest(request, LimitSettings(), decoders, memory).pages[0].image)
    finally:
        decoders.close()
