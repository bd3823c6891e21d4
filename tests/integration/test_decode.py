"""Real decoding processes: the same pixels as without them, and what decoders do to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from fogmqtt.errors import ImageError
from fogmqtt.gateway.jobs.decode import Decoders, open_bytes
from fogmqtt.images import files, reader
from tests.broken_files import mutated, whole
from tests.fog import wait_for
from tests.processes import photo

ROOT = Path(__file__).parents[2]
ROTTEN = "tests.rotten"
#: Enough to start in, on a busy machine; a hang costs a test so long.
PATIENCE_S = 4.0
MAX_PIXELS = 4_000_000


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders() as made:
        yield made
    assert processes() == []


@pytest.fixture(scope="module")
def rotten() -> Iterator[Decoders]:
    """Whose decoder does what it is told; the tests before may have left it warm or dead."""
    with Decoders(program=ROTTEN, timeout_s=PATIENCE_S) as made:
        yield made


def processes(what: str = "decoder_process", parent: int | None = None) -> list[psutil.Process]:
    return [child for child in psutil.Process(parent).children() if _runs(child, what)]


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _runs(process: psutil.Process, what: str) -> bool:
    try:
        return what in " ".join(process.cmdline())
    except psutil.Error:
        return False  # it has just ended


def read(decoders: Decoders, data: bytes, name: str, max_pixels: int = 10**9) -> files.LoadedImage:
    file = open_bytes(data)
    try:
        return decoders.read(file, name, max_pixels=max_pixels)[0]
    finally:
        os.close(file)


def refusal(decoders: Decoders, name: str) -> str:
    with pytest.raises(ImageError) as refused:
        read(decoders, PNG, name)
    return str(refused.value)


def is_exact(decoders: Decoders) -> bool:
    return bool(np.array_equal(read(decoders, PNG, "honest.png").image, PICTURE))


PICTURE = photo(60, 80)
PNG = cv2.imencode(".png", PICTURE)[1].tobytes()


@pytest.mark.parametrize("name", sorted(whole()))
def test_a_file_of_any_kind_is_read_as_without_a_process(name: str, decoders: Decoders) -> None:
    data = whole()[name]
    got, expected = read(decoders, data, name), reader.read(data, name)
    assert np.array_equal(got.image, expected.image)
    assert got.image.dtype == expected.image.dtype
    assert (got.spec, got.notes, got.format) == (expected.spec, expected.notes, expected.format)
    assert got.image.flags.writeable


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_large_images_are_the_same_too(suffix: str, decoders: Decoders) -> None:
    image = photo(1200, 1700)
    deep = image.astype(np.uint16) * 257 if suffix != ".jpg" else image
    data = cv2.imencode(suffix, deep)[1].tobytes()
    expected = reader.read(data, "large").image
    assert np.array_equal(read(decoders, data, "large").image, expected)


def test_what_is_turned_by_its_exif_is_turned(decoders: Decoders) -> None:
    exif = (
        b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    data = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    data = data[:2] + exif + data[2:]
    got = read(decoders, data, "turned.jpg")
    assert got.spec.size == (80, 60)
    assert np.array_equal(got.image, reader.read(data, "turned.jpg").image)


def test_damaged_files_are_refused_in_the_same_words(decoders: Decoders) -> None:
    kept = pids()
    for name, data in (*mutated(random.Random(3), 200), ("empty.png", b""), ("text", b"hello")):
        assert _told(decoders, data, name) == _told(None, data, name)
    assert kept <= pids()


def _told(decoders: Decoders | None, data: bytes, name: str) -> object:
    try:
        if decoders is None:
            with warnings.catch_warnings(action="ignore"):
                return reader.read(data, name, max_pixels=MAX_PIXELS).image.tobytes()
        return read(decoders, data, name, MAX_PIXELS).image.tobytes()
    except ImageError as refused:
        return str(refused)


def pids(what: str = "decoder_process") -> set[int]:
    return {process.pid for process in processes(what)}


def test_a_decoder_has_no_thread_that_would_take_memory_beside_its_file(decoders: Decoders) -> None:
    read(decoders, cv2.imencode(".png", PICTURE)[1].tobytes(), "picture.png")
    assert [process.num_threads() for process in processes()] == [1]


def test_a_process_starts_with_the_first_file_and_stays() -> None:
    with Decoders(program=ROTTEN) as one:
        before = pids("rotten")
        assert is_exact(one)
        (first,) = pids("rotten") - before
        assert is_exact(one)
        assert pids("rotten") - before == {first}
    assert not psutil.pid_exists(first)


def test_threads_read_beside_each_other(decoders: Decoders) -> None:
    with ThreadPoolExecutor(2) as threads:
        found = threads.map(lambda _: is_exact(decoders), range(20))
    assert all(found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash", "its decoder was ended by signal 11 (SIGSEGV)"),
        ("abort", "its decoder was ended by signal 6 (SIGABRT)"),
        ("leave", "its decoder ended with exit code 7"),
        ("raises", "its decoder failed: ValueError: boom ?"),
    ],
)
def test_a_decoder_that_breaks_is_named_with_its_file_and_the_next_file_is_read(
    name: str, reason: str, rotten: Decoders
) -> None:
    assert refusal(rotten, f"{name}.png") == (
        f"{name}.png: {reason}; save it again with another program"
    )
    assert is_exact(rotten)


def test_where_a_decoder_crashed_is_logged(
    rotten: Decoders, caplog: pytest.LogCaptureFixture
) -> None:
    refusal(rotten, "crash.png")
    assert "in crash" in caplog.text


@pytest.mark.parametrize("name", ["hang", "native_hang"])
def test_a_decoder_that_hangs_is_ended_in_time_and_said_where(
    name: str, rotten: Decoders, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_exact(rotten)
    began = time.monotonic()
    assert "did not return within 4.01 s and was ended" in refusal(rotten, f"{name}.png")
    assert time.monotonic() - began < 2 * PATIENCE_S
    assert f"in {name}" in caplog.text
    assert is_exact(rotten)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process's data")
@pytest.mark.parametrize("name", ["eat", "eat_at_once"])
def test_a_decoder_that_eats_memory_is_refused_with_how_much_it_may_have(
    name: str, rotten: Decoders
) -> None:
    said = refusal(rotten, f"{name}.png")
    assert said.startswith(f"{name}.png: PNG of 80x60 pixels takes over ")
    assert "MB to decode; save it again with another program" in said
    assert is_exact(rotten)


def test_a_process_that_kept_memory_is_replaced(rotten: Decoders) -> None:
    assert is_exact(rotten)
    before = pids("rotten")
    read(rotten, PNG, "keep.png")
    assert is_exact(rotten)  # after this one
    assert is_exact(rotten)
    assert not pids("rotten") & before


def test_a_refused_image_leaves_nothing_for_the_next_file() -> None:
    large = photo(3000, 4000)
    jpeg = cv2.imencode(".jpg", large)[1].tobytes()
    png = cv2.imencode(".png", large.astype(np.uint16) * 257, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1]
    broken = png.tobytes()[:-20] + b"damaged!" + png.tobytes()[-12:]
    others = pids("rotten")
    with Decoders(program=ROTTEN) as one:
        assert is_exact(one)
        (process,) = (each for each in processes("rotten") if each.pid not in others)
        before = process.memory_info().data
        for data in (jpeg[: len(jpeg) // 2], broken):
            with pytest.raises(ImageError):
                read(one, data, "broken")
            assert process.is_running()
            assert process.memory_info().data - before < 70_000_000
        assert np.array_equal(read(one, jpeg, "good").image, reader.read(jpeg, "good").image)


def test_a_process_that_somebody_ended_while_it_was_idle_costs_no_file(rotten: Decoders) -> None:
    assert is_exact(rotten)
    for process in processes("rotten"):
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_exact(rotten)


def test_closing_ends_what_hangs_at_once() -> None:
    with Decoders(program=ROTTEN, timeout_s=60) as one, ThreadPoolExecutor(1) as threads:
        assert threads.submit(is_exact, one).result(30)
        (process,) = processes("rotten")[-1:]
        said = threads.submit(refusal, one, "hang.png")
        wait_for(lambda: process.cpu_times().user > 0, within=10, what="the hanging file")
        one.close()
        assert "not decoded, since the gateway is stopping" in said.result(30)
        assert not process.is_running()


def test_no_process_outlives_its_parent() -> None:
    code = (
        "from fogmqtt.gateway.jobs.decode import Decoders, open_bytes\n"
        "from tests.integration.test_decode import PNG\n"
        f"Decoders(program={ROTTEN!r}).read(open_bytes(PNG), 'hang.png', max_pixels=10**9)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        wait_for(lambda: bool(processes("rotten", parent.pid)), within=30, what="its process")
        (child,) = processes("rotten", parent.pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    psutil.wait_procs([child], timeout=10)
    assert _has_ended(child)


def test_a_package_that_is_missing_is_named_in_one_sentence() -> None:
    with Decoders(program="tests.lacking") as one:
        for _ in range(2):
            assert refusal(one, "honest.png") == (
                "honest.png: image files cannot be read here: No module named 'no_such_package'; "
                "install it again: pip install --force-reinstall fogmqtt"
            )


def test_what_no_process_can_be_had_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fogmqtt.workers.child._start", _no_memory)
    with Decoders() as one:
        assert "honest.png: cannot start a process to decode it: " in refusal(one, "honest.png")


def _no_memory(*arguments: object) -> None:
    raise OSError(12, os.strerror(12))
