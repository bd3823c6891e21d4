"""The inbox on real folders: which files are returned, when, and what must not stop it."""

from __future__ import annotations

import asyncio
import base64
import errno
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from inotify_simple import INotify, flags

from fogmqtt.errors import ConfigError
from fogmqtt.gateway.server import folder_events, inbox_folder, inbox_tree
from fogmqtt.gateway.server import inbox as inbox_module
from fogmqtt.gateway.server.inbox import Inbox
from fogmqtt.gateway.server.inbox_folder import InboxFile, InboxTiming
from fogmqtt.gateway.storage.durable_files import LONGEST_NAME, free_path
from fogmqtt.images.endings import ending

PNG = cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes()
JPEG = cv2.imencode(".jpg", np.zeros((9, 9), np.uint8))[1].tobytes()

#: What nobody reported as closed is taken soon; what has no end waits longer than any test.
FAST = InboxTiming(quiet_s=0.1, unfinished_s=60.0, rescan_s=0.1, retry_s=0.1, writing_s=0.2)
#: Only what the kernel reports is taken.
EVENTS_ONLY = InboxTiming(quiet_s=60.0, unfinished_s=60.0, rescan_s=60.0)
#: For what must come; a loaded machine may need some of it.
SOON_S = 20.0


class Consumer:
    """Asks an inbox for files."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self._files = inbox.files()

    async def next(self) -> InboxFile:
        return await asyncio.wait_for(anext(self._files), SOON_S)

    async def take(self) -> str:
        """The next file's path in the inbox; the file is moved away as the gateway does."""
        file = await self.next()
        file.path.unlink()
        return str(file.path.relative_to(self.inbox.folder))

    async def end(self) -> None:
        await self._files.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def watched(folder: Path, timing: InboxTiming = FAST, **options: Any) -> AsyncIterator[Any]:
    inbox = Inbox(folder, ("edges",), timing=timing, **options)
    await inbox.start()
    consumer = Consumer(inbox)
    try:
        yield consumer
    finally:
        await inbox.close()
        await consumer.end()


def drop(path: Path, data: bytes = PNG) -> Path:
    """Put a complete file there as a careful program does."""
    part = path.with_name(f".{path.name}"[:200])
    part.write_bytes(data)
    return part.replace(path)


def put(folder: Path, *names: str, data: bytes = PNG) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "inbox"
    made.mkdir()
    return made


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within_time() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(within_time())


# Complete files.


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.png", PNG), ("a.jpg", JPEG), ("a.tiff", b"II*\0\x08\0\0\0" + PNG)],
    ids=["png", "jpeg", "tiff"],
)
def test_a_file_that_is_closed_after_writing_is_taken_at_once(
    folder: Path, name: str, data: bytes
) -> None:
    async def test() -> None:
        async with watched(folder, EVENTS_ONLY) as consumer:
            (folder / name).write_bytes(data)
            assert await consumer.take() == name

    run(test)


def test_a_file_that_is_moved_in_is_taken_at_once(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with watched(folder, EVENTS_ONLY) as consumer:
            (tmp_path / "a.png").write_bytes(PNG)
            (tmp_path / "a.png").rename(folder / "a.png")
            file = await consumer.next()
            assert file == InboxFile(folder / "a.png", "", file.stamp)
            status = file.path.stat()
            assert file.stamp == (status.st_size, status.st_mtime_ns)

    run(test)


def test_files_that_were_there_before_are_taken_in_order_of_their_names(folder: Path) -> None:
    put(folder, "b.png", "a.png", "c.png")

    async def test() -> None:
        async with watched(folder) as consumer:
            assert [await consumer.take() for _ in "abc"] == ["a.png", "b.png", "c.png"]

    run(test)


WRITER = """
import sys
with open(sys.argv[1], "wb") as file:
    for line in sys.stdin:
        file.write(bytes.fromhex(line))
        file.flush()
        print("written", flush=True)
"""


@contextmanager
def writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Another process that keeps the file open and writes what it is told."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout

        def write(data: bytes) -> None:
            assert process.stdin
            assert process.stdout
            process.stdin.write(data.hex() + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "written\n"

        yield write
        process.stdin.close()
        assert process.wait(SOON_S) == 0


def test_a_file_that_another_process_writes_slowly_is_taken_when_that_closes_it(
    folder: Path,
) -> None:
    # No waiting helps here: only the close does.
    timing = InboxTiming(quiet_s=0.0, unfinished_s=0.0, rescan_s=0.05, writing_s=0.1)

    async def test() -> None:
        async with watched(folder, timing) as consumer:
            with writer(folder / "slow.png") as write:
                for start in range(0, len(PNG), 20):
                    write(PNG[start : start + 20])
                    drop(folder / "other.png")
                    assert await consumer.take() == "other.png"
            assert await consumer.take() == "slow.png"

    run(test)


def test_a_file_that_was_there_and_is_written_again_waits_for_the_close(folder: Path) -> None:
    put(folder, "a.png")
    timing = InboxTiming(quiet_s=0.1, unfinished_s=0.1, rescan_s=0.05, writing_s=0.1)

    async def test() -> None:
        async with watched(folder, timing) as consumer:
            with writer(folder / "a.png") as write:
                write(PNG)
                for _ in range(5):
                    await asyncio.sleep(0.1)
                    drop(folder / "other.png")
                    assert await consumer.take() == "other.png"
            assert await consumer.take() == "a.png"

    run(test)


@pytest.mark.parametrize(("name", "data"), [("a.png", PNG), ("a.jpg", JPEG)], ids=["png", "jpeg"])
def test_a_copy_that_is_closed_half_way_is_taken_with_its_end(
    folder: Path, name: str, data: bytes
) -> None:
    async def test() -> None:
        async with watched(folder, EVENTS_ONLY) as consumer:
            (folder / name).write_bytes(data[:-20])
            drop(folder / "other.png")
            assert await consumer.take() == "other.png"
            with (folder / name).open("ab") as file:
                file.write(data[-20:])
            assert (await consumer.next()).path.read_bytes() == data

    run(test)


@pytest.mark.parametrize("data", [b"", PNG[:-20]], ids=["empty", "cut"])
def test_a_file_that_stays_without_its_end_is_taken_in_the_end(folder: Path, data: bytes) -> None:
    put(folder, "a.png", data=data)
    timing = InboxTiming(quiet_s=0.05, unfinished_s=0.4, rescan_s=0.1)

    async def test() -> None:
        began = time.monotonic()
        async with watched(folder, timing) as consumer:
            assert await consumer.take() == "a.png"
        assert time.monotonic() - began >= 0.4

    run(test)


@pytest.mark.parametrize(
    "kind", [Path.hardlink_to, Path.symlink_to], ids=["hard link", "symbolic link"]
)
def test_links_to_files_are_taken(
    folder: Path, tmp_path: Path, kind: Callable[[Path, Path], None]
) -> None:
    put(tmp_path, "elsewhere.png")

    async def test() -> None:
        async with watched(folder) as consumer:
            kind(folder / "link.png", tmp_path / "elsewhere.png")
            assert await consumer.take() == "link.png"

    run(test)


def test_a_file_that_is_replaced_all_the_time_is_taken_although_more_come_than_are_taken(
    folder: Path,
) -> None:
    async def test() -> None:
        async with watched(folder, EVENTS_ONLY) as consumer:
            for number in range(5):
                drop(folder / f"old-{number}.png")
            taken = []
            for number in range(30):
                drop(folder / "latest.png")
                drop(folder / f"new-{number}.png")
                taken.append(await consumer.take())
            assert taken.count("latest.png") >= 2

    run(test)


def test_a_file_that_is_replaced_in_the_consumers_hands_is_taken_once_more(folder: Path) -> None:
    async def test() -> None:
        async with watched(folder, EVENTS_ONLY) as consumer:
            drop(folder / "a.png")
            old = await consumer.next()
            drop(folder / "a.png", JPEG)
            new = await consumer.next()
            assert new.path == old.path
            assert new.stamp[0] == len(JPEG)
            drop(folder / "b.png")
            assert (await consumer.next()).path.name == "b.png"

    run(test)


def test_a_file_that_cannot_be_taken_comes_again_when_its_time_has_come(folder: Path) -> None:
    async def test() -> None:
        async with watched(folder, EVENTS_ONLY) as consumer:
            drop(folder / "a.png")
            file = await consumer.next()
            began = time.monotonic()
            consumer.inbox.retry(file, 0.3)
            assert await consumer.take() == "a.png"
            assert time.monotonic() - began >= 0.3

    run(test)


def test_a_file_that_a_cancelled_consumer_did_not_get_is_not_lost(folder: Path) -> None:
    put(folder, "a.png")

    async def test() -> None:
        async with watched(folder) as consumer:
            for _ in range(20):
                asking = asyncio.ensure_future(anext(consumer.inbox.files()))
                await asyncio.sleep(0.01)
                if asking.done():
                    break
                asking.cancel()
            else:
                asking = asyncio.ensure_future(consumer.next())
            assert (await asking).path.name == "a.png"

    run(test)


# Names and folders.


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.png",
        "a.png.part",
        "a.crdownload",
        "a.TMP",
        "a.png~",
        ".DS_Store",
        "Thumbs.db",
        "Desktop.ini",
        "~$letter.docx",
        "done/a.png",
        "failed/a.png",
        "2026/done/a.png",
        "edges/failed/a.png",
        ".spool/a.png",
        "@eaDir/a.png",
        "outbox/a.png",
    ],
)
def test_what_is_no_image_or_not_finished_is_left_without_a_word(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, name)

    async def test() -> None:
        async with watched(folder, excluded=[folder / "outbox"]) as consumer:
            put(folder, name)  # now with events
            for number in range(3):
                await asyncio.sleep(FAST.quiet_s)
                drop(folder / f"{number}.png")
                assert await consumer.take() == f"{number}.png"

    run(test)
    assert (folder / name).exists()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("0-notes.txt", b"To whom it may concern\n", "a text file"),
        ("0-IMG_0001.xmp", b"<?xpacket begin=''?><x:xmpmeta/>", "a text file"),
        ("0-scan.pdf", b"%PDF-1.7\n\0", "a PDF file"),
        ("0-clip.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "an MP4 or QuickTime video"),
        ("0-unknown", bytes(range(1, 200)), "of a format that is not known"),
    ],
)
def test_what_is_clearly_no_image_is_named_once_and_left_alone(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str, data: bytes, what: str
) -> None:
    async def test() -> None:
        async with watched(folder) as consumer:
            drop(folder / name, data)
            drop(folder / "a.png")
            assert await consumer.take() == "a.png"
            drop(folder / name, PNG)  # now it is one
            assert await consumer.take() == name

    with caplog.at_level(logging.INFO):
        run(test)
    said = [text for text in caplog.messages if name in text]
    assert said == [f"inbox: {folder / name} is left alone: no image, but {what}"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("words.png", b"To whom it may concern\n"),
        ("photo", PNG),
        ("photo.b64", base64.b64encode(PNG * 40)),
        ("photo.txt", b"data:image/png;base64," + base64.b64encode(PNG)),
    ],
)
def test_what_is_named_like_an_image_or_is_one_is_taken(
    folder: Path, name: str, data: bytes
) -> None:
    async def test() -> None:
        async with watched(folder) as consumer:
            drop(folder / name, data)
            assert await consumer.take() == name

    run(test)


def test_a_file_whose_name_becomes_finished_is_taken(folder: Path) -> None:
    async def test() -> None:
        async with watched(folder, EVENTS_ONLY) as consumer:
            put(folder, "a.png.part")
            (folder / "a.png.part").rename(folder / "a.png")
            assert await consumer.take() == "a.png"

    run(test)


NAMES = [
    b"caf\xe9.png",
    b"\xff\xfe.png",
    b"two\nlines\r.png",
    "写真".encode() * 40 + b".png",
    b"x" * 251 + b".png",
    b" .png",
    b"-rf.png",
    b"\x1b[31m.png",
]


@pytest.mark.parametrize("are_new", [False, True])
def test_every_legal_name_is_taken(folder: Path, are_new: bool) -> None:
    def write() -> None:
        for name in NAMES:
            (folder / os.fsdecode(name)).write_bytes(PNG)

    async def test() -> None:
        if not are_new:
            write()
        async with watched(folder) as consumer:
            if are_new:
                write()
            taken = {os.fsencode(await consumer.take()) for _ in NAMES}
            assert taken == set(NAMES)

    run(test)


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("a.png", ""),
        ("edges/a.png", "edges"),
        ("edges/2026/11/28/a.png", "edges"),
        ("2026/11/28/a.png", ""),
        ("2026/edges/a.png", ""),
        ("caf\udce9/a.png", ""),
    ],
)
@pytest.mark.parametrize("is_new", [False, True])
def test_the_first_subfolder_selects_the_pipeline(
    folder: Path, name: str, pipeline: str, is_new: bool
) -> None:
    async def test() -> None:
        if not is_new:
            put(folder, name)
        async with watched(folder) as consumer:
            if is_new:
                put(folder, name)
            file = await consumer.next()
            assert (file.path, file.pipeline) == (folder / name, pipeline)

    run(test)


def test_files_in_a_new_or_renamed_subfolder_are_taken_at_once(
    folder: Path, tmp_path: Path
) -> None:
    timing = InboxTiming(quiet_s=0.1, rescan_s=60.0)

    async def test() -> None:
        async with watched(folder, timing) as consumer:
            put(folder, "2026/11/a.png")  # this may be written before the folder is watched
            assert await consumer.take() == "2026/11/a.png"
            put(folder, "2026/11/b.png")
            assert await consumer.take() == "2026/11/b.png"
            (folder / "2026").rename(folder / "2027")
            drop(folder / "other.png")
            assert await consumer.take() == "other.png"
            put(folder, "2027/c.png")
            assert await consumer.take() == "2027/c.png"
            put(tmp_path, "full/d.png")
            (tmp_path / "full").rename(folder / "full")
            assert await consumer.take() == "full/d.png"

    run(test)


def test_a_folder_that_is_no_pipeline_is_named_in_the_log_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, "edgse/a.png", "edgse/b.png", "edges/c.png")
    caplog.set_level(logging.INFO)

    async def test() -> None:
        async with watched(folder) as consumer:
            for _ in "abc":
                await consumer.take()

    run(test)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"inbox: {folder}/edgse is not named after a pipeline; its files go to the default pipeline"
    ]


def test_links_to_folders_and_links_to_nowhere_are_not_followed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "elsewhere/a.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(folder)
    (folder / "nowhere.png").symlink_to(tmp_path / "nothing")
    put(folder, "b.png")

    async def test() -> None:
        async with watched(folder) as consumer:
            assert await consumer.take() == "b.png"
            put(tmp_path, "nothing")
            assert await consumer.take() == "nowhere.png"

    run(test)
    said = sorted(record.getMessage() for record in caplog.records)
    assert said == [
        f"inbox: {folder}/{name} is a link to a folder, which is not followed"
        for name in ("link", "up")
    ]


def test_a_pipe_is_never_opened_and_named_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(folder / "a.png")
    put(folder, "b.png")

    async def test() -> None:
        async with watched(folder) as consumer:
            for _ in range(3):
                assert await consumer.take() == "b.png"
                put(folder, "b.png")

    run(test)
    assert [record.getMessage() for record in caplog.records] == [
        f"inbox: {folder}/a.png is no regular file"
    ]


def watches() -> int:
    """How many folders this process watches."""
    found = 0
    for path in Path("/proc/self/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            found += path.read_text().count("inotify wd:")
    return found


def test_a_folder_that_leaves_the_inbox_is_watched_no_longer(folder: Path, tmp_path: Path) -> None:
    put(folder, "edges/a.png", "2026/b.png")

    async def test() -> None:
        async with watched(folder) as consumer:
            assert watches() == 3
            (folder / "2026").rename(tmp_path / "2026")
            while watches() != 2:
                put(folder, "edges/a.png")
                assert await consumer.take() == "edges/a.png"

    run(test)


def test_a_pipe_that_took_a_files_place_is_opened_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "a.png")
    with inbox_folder._open(str(folder / "a.png")) as file, pytest.raises(OSError, match="seek"):
        ending(file)


# Errors.


def refusing(path: Path, code: int) -> Callable[[str], Any]:
    """Opens all files but this one."""
    opened = inbox_folder._open

    def opening(name: str) -> Any:
        if name == str(path):
            raise OSError(code, os.strerror(code), name)
        return opened(name)

    return opening


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_file_that_cannot_be_read_is_named_once_and_taken_when_it_can(
    folder: Path, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, "lock\ned.png")
    monkeypatch.setattr(inbox_folder, "_open", refusing(folder / "lock\ned.png", code))

    async def test() -> None:
        async with watched(folder) as consumer:
            for number in range(4):
                await asyncio.sleep(FAST.retry_s)
                drop(folder / f"{number}.png")
                assert await consumer.take() == f"{number}.png"
            monkeypatch.undo()
            assert await consumer.take() == "lock\ned.png"

    run(test)
    said = [record.getMessage() for record in caplog.records]
    shown = f"{folder}/lock\\ned.png"
    assert said == [f"inbox: {shown} cannot be read: {os.strerror(code)}"]


def test_an_inbox_that_is_deleted_is_named_once_and_watched_when_it_is_back(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def named(text: str) -> None:
        while text not in caplog.text:
            await asyncio.sleep(0.01)

    async def test() -> None:
        async with watched(folder) as consumer:
            asking = asyncio.ensure_future(consumer.next())
            await asyncio.sleep(0.3)
            folder.rmdir()
            await named("cannot be listed")
            await asyncio.sleep(0.3)
            folder.mkdir()
            await named("can be listed again")
            drop(folder / "a.png")
            assert (await asking).path.name == "a.png"

    run(test)
    assert [record.getMessage() for record in caplog.records] == [
        f"inbox: {folder} cannot be listed: No such file or directory",
        f"inbox: {folder} can be listed again",
    ]


def test_a_subfolder_that_cannot_be_listed_stops_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, "bad/a.png", "edges/b.png")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("bad"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    async def test() -> None:
        async with watched(folder) as consumer:
            for _ in range(3):
                assert await consumer.take() == "edges/b.png"
                put(folder, "edges/b.png")
            monkeypatch.undo()
            while await consumer.take() != "bad/a.png":
                pass

    run(test)
    assert [record.getMessage() for record in caplog.records] == [
        f"inbox: {folder}/bad cannot be listed: Permission denied"
    ]


def test_an_error_of_the_whole_inbox_ends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, "a.png")
    monkeypatch.setattr(inbox_module, "_RECOVER_S", 0.01)
    read = folder_events.FolderEvents.read
    errors = iter([OSError(errno.EIO, "Input/output error")])

    def fail_once(events: folder_events.FolderEvents) -> Any:
        for error in errors:
            raise error
        return read(events)

    monkeypatch.setattr(folder_events.FolderEvents, "read", fail_once)

    async def test() -> None:
        async with watched(folder) as consumer:
            assert await consumer.take() == "a.png"

    run(test)
    assert "Input/output error; trying again" in caplog.text


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, None])
def test_without_events_files_are_found_by_listing(
    folder: Path,
    code: int | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_events() -> None:
        if code is not None:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(inbox_tree, "open_events", no_events)

    async def test() -> None:
        async with watched(folder) as consumer:
            for number in range(3):
                put(folder, f"2026/{number}.png")
                assert await consumer.take() == f"2026/{number}.png"

    run(test)
    assert len(caplog.records) == (code is not None)


def test_lost_events_are_made_good_by_listing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel keeps max_queued_events, 16 384; what comes after them is dropped."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    timing = InboxTiming(quiet_s=0.1, rescan_s=3600.0)

    async def test() -> None:
        async with watched(folder, timing) as consumer:
            noise = [folder / f"{name}.tmp" for name in "ab"]
            files = [path.open("wb", buffering=0) for path in noise]
            for number in range(limit + 2):
                files[number % 2].write(b"x")  # two equal events in a row would become one
            put(folder, "a.png")
            for file in files:
                file.close()
            assert await consumer.take() == "a.png"
            put(folder, "b.png")
            assert await consumer.take() == "b.png"

    run(test)


def test_an_inbox_that_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    put(tmp_path, "file")

    async def test() -> None:
        inbox = Inbox(tmp_path / "file" / "inbox", ())
        with pytest.raises(ConfigError, match=r"gateway\.inbox: cannot use .*file/inbox: Not a"):
            await inbox.start()
        await inbox.close()

    run(test)


# What the event loop and other programs feel of it.


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """Measures the CPU-seconds of the event loop between two runs of a timer of 10 ms.

    CPU-seconds, because other programs on this machine make every timer late.
    """
    busy: list[float] = []

    async def tick() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.01)
            busy.append(time.thread_time() - began)

    ticker = asyncio.create_task(tick())
    try:
        yield busy
    finally:
        ticker.cancel()


@contextmanager
def counting_opens(folder: Path) -> Iterator[Callable[[], int]]:
    """Counts the files of a folder that anybody opens: the kernel reports them."""
    with INotify() as inotify:
        inotify.add_watch(folder, flags.OPEN)

        def count() -> int:
            events = inotify.read(timeout=0)
            assert not any(event.mask & flags.Q_OVERFLOW for event in events)
            return sum(1 for event in events if event.name and not event.mask & flags.ISDIR)

        yield count


def test_ten_thousand_files_that_nobody_takes_cost_nothing(folder: Path) -> None:
    put(folder, *(f"{number:05}.png" for number in range(10_000)))
    timing = InboxTiming(quiet_s=0.2, rescan_s=0.2)

    async def test() -> None:
        async with watched(folder, timing) as consumer, ticking() as busy:
            with counting_opens(folder) as opened:
                await asyncio.sleep(0.5)
                assert opened() == 0
                # One is asked for, one is opened.
                assert await consumer.take() == "00000.png"
                assert opened() == 1
                for number in range(3):
                    drop(folder / f"new-{number}.png")
                    opened()
                    await asyncio.sleep(0.3)
                    assert opened() == 0
                assert [await consumer.take() for _ in range(50)][-1] == "00050.png"
                assert opened() == 50
        assert max(busy) < 0.1

    run(test)


@pytest.mark.parametrize("call", ["scandir", "stat", "open"])
def test_a_call_that_hangs_stops_nothing_but_the_inbox(
    folder: Path, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, "a.png")
    hangs, goes_on = threading.Event(), threading.Event()
    real = getattr(os, call)

    def hang(path: Any, *arguments: Any, **options: Any) -> Any:
        if threading.current_thread().name == "inbox":
            hangs.set()
            goes_on.wait(SOON_S)
        return real(path, *arguments, **options)

    monkeypatch.setattr(inbox_module, "_HUNG_S", 0.2)
    monkeypatch.setattr(inbox_module, "_PATIENCE_S", 0.2)

    async def test() -> None:
        async with watched(folder) as consumer, ticking() as busy:
            monkeypatch.setattr(os, call, hang)
            asking = asyncio.ensure_future(consumer.next())
            assert await asyncio.to_thread(hangs.wait, SOON_S)
            await asyncio.sleep(0.5)
            assert not asking.done()
            await consumer.inbox.close()
            with pytest.raises(StopAsyncIteration):
                await asking
        assert max(busy) < 0.1

    try:
        run(test)
    finally:
        goes_on.set()
    assert "the file system does not answer" in caplog.text


OPENER = """
import sys
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100_000):
    for path in sys.argv[1:]:
        open(path, "ab").close()
"""

ASKER = """
import asyncio, sys
from pathlib import Path
from fogmqtt.gateway.server.inbox import Inbox, InboxTiming

async def main():
    inbox = Inbox(Path(sys.argv[1]), (), timing=InboxTiming(quiet_s=0.0, rescan_s=0.01))
    await inbox.start()
    print("ready", flush=True)
    async with asyncio.timeout(60):
        while True:
            async for file in inbox.files():
                if file.path.name == "stop.png":
                    await inbox.close()
                    return
                inbox.retry(file, 0.0)

asyncio.run(main())
"""


def test_programs_that_open_files_for_writing_while_they_are_checked_end_nobody(
    folder: Path,
) -> None:
    """A read lease made the kernel send SIGIO to its holder, which ends a process."""
    put(folder, "a.png")
    with (
        subprocess.Popen(
            [sys.executable, "-c", ASKER, folder], stdout=subprocess.PIPE, text=True
        ) as asker,
        subprocess.Popen(
            [sys.executable, "-c", OPENER, folder / "a.png"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as opener,
    ):
        assert asker.stdout
        assert opener.stdout
        assert asker.stdout.readline() == opener.stdout.readline() == "ready\n"
        opener.communicate("go\n", timeout=60)
        drop(folder / "stop.png")
        assert asker.wait(60) == 0


def test_the_inbox_leaves_no_file_descriptor_and_no_thread(folder: Path) -> None:
    put(folder, "a.png")

    def open_now() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def test() -> None:
        before = open_now()
        threads = {thread.ident for thread in threading.enumerate()}
        async with watched(folder) as consumer:
            await consumer.take()
            asking = asyncio.ensure_future(consumer.next())
            await asyncio.sleep(0.05)
            await consumer.inbox.close()
            with pytest.raises(StopAsyncIteration):
                await asking
        assert open_now() == before
        for thread in threading.enumerate():
            if thread.ident not in threads:
                thread.join(SOON_S)
                assert not thread.is_alive()

    run(test)


def test_a_system_without_inotify_has_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert folder_events.open_events() is None


# Free names.


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for number in range(1, 12):
        free = free_path(path)
        assert free.name == ("a.png" if number == 1 else f"a-{number}.png")
        free.write_bytes(b"")


def test_a_name_that_was_chosen_by_another_is_not_free(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert free_path(path, {str(path), str(tmp_path / "a-2.png")}).name == "a-3.png"


def test_the_name_of_a_link_to_nowhere_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "nothing")
    assert free_path(tmp_path / "a.png").name == "a-2.png"


def test_a_free_name_among_many_is_found_with_few_looks(tmp_path: Path) -> None:
    class Numbers:
        looks = 0

        def __contains__(self, path: object) -> bool:
            self.looks += 1
            number = Path(str(path)).stem.partition("-")[2] or "1"
            return int(number) < 100_000

    numbers = Numbers()
    assert free_path(tmp_path / "a.png", numbers).name == "a-100000.png"
    assert numbers.looks < 50


def test_a_suffix_that_is_no_suffix_does_not_keep_a_name_long(tmp_path: Path) -> None:
    for name in ("a." + "x" * 253, "." + "x" * 254):
        assert len(free_path(tmp_path / name).name) <= LONGEST_NAME


@pytest.mark.parametrize("stem", ["x" * 251, "写真" * 41, "\udce9" * 250])
def test_a_long_name_is_shortened_so_that_a_number_and_a_reason_fit(
    tmp_path: Path, stem: str
) -> None:
    for _ in range(3):
        free = free_path(tmp_path / f"{stem}.png")
        assert len(os.fsencode(free.name)) <= LONGEST_NAME
        assert free.suffix == ".png"
        free.with_name(f".{free.name}.txt.part").write_bytes(b"")
        assert not free.exists()
        free.write_bytes(b"")
