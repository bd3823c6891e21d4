"""The inbox folder: whole files are taken, results go to the outbox, originals are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from tests.fog import wait_for
from tests.processes import Fog, edges_of, fog_at, gray_of, photo, private_fog, read, same, until

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def folder(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a gateway watches `inbox` all along, and does the work itself."""
    del broker  # skips or fails where Mosquitto is missing
    made = tmp_path_factory.mktemp("fog")
    (made / "gateway.yaml").write_text(
        "gateway: {deliver: both}\n"
        "pipelines: {edges: gray | canny low=50 high=150, negative: gray | invert}\n"
    )
    with private_fog(made, LIMITS__MAX_PIXELS="1000000", GATEWAY__LOCAL="always") as fog:
        gateway = fog.serve_with(made / "gateway.yaml")
        gateway.says("mariem is online")
        yield made
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.said


def drop(folder: Path, name: str, data: bytes) -> Path:
    """Put a whole file into the inbox as a careful program does."""
    target = folder / "inbox" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}")
    part.write_bytes(data)
    part.replace(target)
    return target


def png(seed: int) -> bytes:
    return cv2.imencode(".png", photo(120, 160, seed))[1].tobytes()


def appears(path: Path) -> Path:
    until(path.exists, f"{path} to appear")
    return path


def test_a_file_goes_in_and_its_edges_come_out(folder: Path) -> None:
    data = png(1)
    source = drop(folder, "one.png", data)
    result = appears(folder / "outbox" / "one.png")
    done = appears(folder / "inbox" / "done" / "one.png")
    assert done.read_bytes() == data
    assert same(read(result), edges_of(done))
    assert not source.exists()


def test_a_folder_named_after_a_pipeline_asks_for_it(folder: Path) -> None:
    drop(folder, "negative/two.png", png(2))
    done = appears(folder / "inbox" / "negative" / "done" / "two.png")
    assert same(read(appears(folder / "outbox" / "two.png")), 255 - gray_of(done))


def test_a_half_written_file_is_left_until_it_is_whole(folder: Path) -> None:
    data = png(3)
    with (folder / "inbox" / "slow.png").open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        os.fsync(file.fileno())
        # A file that is dropped now and taken shows that the inbox was looked through.
        drop(folder, "meanwhile.png", png(4))
        appears(folder / "outbox" / "meanwhile.png")
        assert (folder / "inbox" / "slow.png").exists()
        file.write(data[len(data) // 2 :])
    assert same(
        read(appears(folder / "outbox" / "slow.png")),
        edges_of(appears(folder / "inbox" / "done" / "slow.png")),
    )


def test_a_copy_that_pauses_half_way_with_the_file_closed_is_waited_for(folder: Path) -> None:
    data = png(5)
    path = folder / "inbox" / "paused.png"
    path.write_bytes(data[:5000])
    drop(folder, "later.png", png(6))
    appears(folder / "outbox" / "later.png")
    assert path.exists(), "taken although its end was missing"
    with path.open("ab") as file:
        file.write(data[5000:])
    appears(folder / "outbox" / "paused.png")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("words.png", b"not a picture at all", "words.png: not an image"),
        ("big.png", cv2.imencode(".png", photo(1100, 1000))[1].tobytes(), "limits.max_pixels"),
    ],
)
def test_a_failure_lies_in_its_folder_with_the_reason_beside(
    folder: Path, name: str, data: bytes, says: str
) -> None:
    drop(folder, name, data)
    failed = folder / "inbox" / "failed" / name
    assert says in appears(failed.with_name(f"{name}.txt")).read_text()
    assert failed.read_bytes() == data
    assert not (folder / "outbox" / name).exists()


def test_two_files_of_one_name_give_two_results(folder: Path) -> None:
    for seed, number in ((7, 1), (8, 2)):
        drop(folder, "same.png", png(seed))
        until(lambda: not (folder / "inbox" / "same.png").exists(), "the file to be taken")
        suffix = "" if number == 1 else f"-{number}"
        result = appears(folder / "outbox" / f"same{suffix}.png")
        done = appears(folder / "inbox" / "done" / f"same{suffix}.png")
        assert same(read(result), edges_of(done))


def test_files_that_were_there_before_the_gateway_are_done(lone_fog: Fog) -> None:
    names = [f"old-{number}.png" for number in range(3)]
    for number, name in enumerate(names):
        drop(lone_fog.folder, name, png(number))
    lone_fog.serve(GATEWAY__LOCAL="always")
    for name in names:
        appears(lone_fog.folder / "outbox" / name)
        appears(lone_fog.folder / "inbox" / "done" / name)


def test_a_killed_gateway_finishes_what_it_had_taken(lone_fog: Fog) -> None:
    first = lone_fog.serve()  # no device, and local is never: it cannot finish
    data = png(9)
    drop(lone_fog.folder, "taken.png", data)
    first.says("taken.png: accepted")
    first.kill()
    assert not (lone_fog.folder / "inbox" / "taken.png").exists()
    lone_fog.serve(GATEWAY__LOCAL="always")
    done = appears(lone_fog.folder / "inbox" / "done" / "taken.png")
    assert done.read_bytes() == data
    assert same(read(appears(lone_fog.folder / "outbox" / "taken.png")), edges_of(done))


def test_deliver_both_also_publishes(lone_fog: Fog) -> None:
    lone_fog.serve(GATEWAY__LOCAL="always", GATEWAY__DELIVER="both")
    with lone_fog.probe("fog/v1/replies/#", client_id="watch") as client:
        drop(lone_fog.folder, "both.png", png(10))
        answer = client.message("fog/v1/replies/inbox/image", within=60).payload
        result = appears(lone_fog.folder / "outbox" / "both.png")
        assert result.read_bytes() == answer
        client.publish("fog/v1/submit/edges/me", png(11))
        answer = client.message("fog/v1/replies/me/image", within=60).payload
        status = {"state": ""}
        while status["state"] != "done":
            status = json.loads(client.message("fog/v1/replies/me/status", within=60).payload)
    assert Path(lone_fog.folder, status["file"]).read_bytes() == answer


def test_without_an_outbox_an_inbox_makes_no_sense(lone_fog: Fog) -> None:
    serving = lone_fog.start_serving(GATEWAY__OUTBOX="")
    assert serving.ended() == 2
    assert "error: gateway.outbox: 'auto' delivery needs a folder" in serving.said


def test_a_spool_that_cannot_be_written_is_named(lone_fog: Fog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    serving = lone_fog.start_serving(GATEWAY__SPOOL="file/spool")
    assert serving.ended() == 2
    assert "error: gateway.spool: cannot write to file/spool" in serving.said


def test_an_outbox_that_cannot_be_written_fails_the_job_with_the_reason(
    broker: object, tmp_path: Path, lone_fog: Fog
) -> None:
    (tmp_path / "outbox").write_text("in the way")
    with fog_at(tmp_path, lone_fog.broker, GATEWAY__LOCAL="always") as fog:
        gateway = fog.serve()
        drop(tmp_path, "no.png", png(12))
        reason = appears(tmp_path / "inbox" / "failed" / "no.png.txt")
        wait_for(lambda: "outbox" in reason.read_text(), what="the reason")
        assert gateway.running


def test_a_file_name_that_is_no_text_is_done_like_any_other(lone_fog: Fog) -> None:
    lone_fog.settings["GATEWAY__LOCAL"] = "always"
    lone_fog.serve()
    image = cv2.imencode(".png", photo())[1].tobytes()
    inbox = os.fsencode(lone_fog.folder / "inbox")
    with open(inbox + b"/bad\xffname.png", "wb") as file:  # noqa: PTH123
        file.write(image)
    until(lambda: any((lone_fog.folder / "outbox").glob("bad*name.png")), "its result")


def test_an_inbox_that_is_the_outbox_is_refused(lone_fog: Fog) -> None:
    done = lone_fog.command(GATEWAY__INBOX="both", GATEWAY__OUTBOX="both")
    assert done.returncode == 2
    assert "is the inbox" in done.stderr


def test_other_users_of_the_machine_read_only_what_the_folders_let_them(folder: Path) -> None:
    private = [folder / "outbox", folder / "inbox", *(folder / "spool").rglob("*")]
    assert len(private) > 4
    assert not [path for path in private if path.stat().st_mode & 0o077]
    drop(folder, "private.png", png(21))
    assert appears(folder / "outbox" / "private.png").stat().st_mode & 0o077 == 0
    (folder / "outbox").chmod(0o755)
    try:
        drop(folder, "shared.png", png(22))
        until(
            lambda: appears(folder / "outbox" / "shared.png").stat().st_mode & 0o777 == 0o644,
            "a result that others may read",
        )
    finally:
        (folder / "outbox").chmod(0o700)


def test_links_that_somebody_plants_lead_nowhere(folder: Path) -> None:
    outside = folder / "outside"
    outside.mkdir()
    (outside / "kept.png").write_bytes(png(23))
    planted = folder / "inbox" / "planted"
    planted.symlink_to(outside)
    drop(folder, "after.png", png(24))
    appears(folder / "inbox" / "done" / "after.png")
    planted.unlink()
    assert [path.name for path in outside.iterdir()] == ["kept.png"]
