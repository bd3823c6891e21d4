"""`fog-gateway run`: one-off jobs, exact, with figures and exit codes that can be relied upon."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Received
from tests.fog import free_port, wait_for
from tests.hearing import hearing
from tests.processes import DEVICES, Fog, edges_of, gray_of, photo, read, same

pytestmark = pytest.mark.broker

CROSS = cv2.getStructuringElement(cv2.MORPH_RECT, (3, 3))

CASES: dict[str, tuple[str, str, Callable[[Path], Image]]] = {
    "colour png": ("in.png", "gray | canny", edges_of),
    "jpeg": ("in.jpg", "gray | canny low=20 high=60", lambda path: edges_of(path, 20, 60)),
    "aperture 5, l2": (
        "in.png",
        "gray | canny low=900 high=2400 aperture=5 l2=true",
        lambda path: cv2.Canny(gray_of(path), 900, 2400, apertureSize=5, L2gradient=True),
    ),
    "chain of halos": (
        "in.png",
        "gray | median ksize=5 | gaussian ksize=7 | canny low=30 high=90",
        lambda path: cv2.Canny(
            cv2.GaussianBlur(cv2.medianBlur(gray_of(path), 5), (7, 7), 0), 30, 90
        ),
    ),
    "several stages": (
        "in.jpg",
        "gray | canny | dilate ksize=3 | invert",
        lambda path: 255 - cv2.dilate(edges_of(path), CROSS),
    ),
    "colour all the way": (
        "in.png",
        "median ksize=7 | invert",
        lambda path: 255 - cv2.medianBlur(cv2.imread(str(path)), 7),  # type: ignore[arg-type]
    ),
}


@pytest.fixture(scope="module")
def pictures(fog: Fog) -> dict[str, Path]:
    picture = photo()
    return {name: fog.save(name, picture) for name in ("in.png", "in.jpg")}


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_opencvs_own(fog: Fog, pictures: dict[str, Path], case: str) -> None:
    name, pipeline, expected = CASES[case]
    out = fog.folder / "out.png"
    fog.run(pictures[name], "-o", out, "--pipeline", pipeline, "--tiles", "size 130x90")
    assert same(read(out), expected(pictures[name]))


@pytest.mark.parametrize("tiles", ["auto", "grid 3x1", "grid 1x3", "grid 17x11"])
def test_every_way_to_cut_gives_the_same(fog: Fog, pictures: dict[str, Path], tiles: str) -> None:
    fog.run(pictures["in.jpg"], "-o", fog.folder / "out.png", "--tiles", tiles)
    assert same(read(fog.folder / "out.png"), edges_of(pictures["in.jpg"]))


def test_the_trace_of_a_run_shows_each_tile_at_its_worker(
    fog: Fog, pictures: dict[str, Path]
) -> None:
    options = ("-o", "out.png", "--pipeline", "gray | canny", "--tiles", "grid 3x4")
    fog.run(pictures["in.png"], *options, "--trace", "trace.json")
    trace = json.loads((fog.folder / "trace.json").read_text("utf-8"))
    assert trace["otherData"]["jobs"][0]["pipeline"] == "gray | canny"
    events = trace["traceEvents"]
    workers = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"].startswith("worker")
    }
    done = {
        event["name"]
        for event in events
        if event["ph"] == "X" and (event["pid"], event["tid"]) in workers
    }
    assert {f"tile {index}" for index in range(12)} <= done


def test_the_report_has_every_promised_figure(fog: Fog, pictures: dict[str, Path]) -> None:
    out = fog.folder / "out.png"
    with hearing(fog.broker.url) as heard:
        grid = ("--tiles", "grid 4x3")
        # A busy machine's link may seem so slow that png would save time.
        ran = fog.run(pictures["in.png"], "-o", out, *grid, "--verify", WIRE__CODEC="raw")
        report = ran.report
        # On a busy machine a tile may be given to a second device; then the figures say so.
        again = report["retries"] + report["hedges"]
        wait_for(lambda: heard.resent == again, what=f"{again} tiles that were sent again")
    assert report["pipeline"] == "gray | canny low=50 high=150"
    assert report["pixels"] == 480 * 640
    assert report["tiles"] == 12
    assert report["job"]
    assert 0 < report["seconds"] < 60
    assert set(report["devices"]) <= set(DEVICES)
    assert sum(one["tiles"] for one in report["devices"].values()) == 12
    assert sum(one["pixels"] for one in report["devices"].values()) == 480 * 640
    assert min(report["retries"], report["hedges"], report["duplicates"]) >= 0
    assert report["duplicates"] <= heard.resent
    assert report["wire_bytes"]["out"] >= 480 * 640
    assert 0 < report["wire_bytes"]["back"] < report["wire_bytes"]["out"]
    assert report["differ"] == 0
    assert ran.out == "0 of 307200 pixels differ from one machine\n"


def test_without_verify_nobody_claims_anything(fog: Fog, pictures: dict[str, Path]) -> None:
    ran = fog.run(pictures["in.png"], "-o", fog.folder / "out.png")
    assert ran.report["differ"] is None
    assert ran.out == ""
    assert "tiles" in ran.err


def test_several_images_go_to_a_folder(fog: Fog) -> None:
    images = [fog.save(f"shot-{number}.png", photo(120, 160, number)) for number in range(6)]
    out = fog.folder / "several"
    ran = fog.run(*images, "-o", out, "--tiles", "grid 2x2")
    assert [report["name"] for report in ran.report] == [image.name for image in images]
    for image in images:
        assert same(read(out / image.name), edges_of(image))


def test_one_bad_image_of_several_costs_no_other(fog: Fog, pictures: dict[str, Path]) -> None:
    bad = fog.folder / "bad.png"
    bad.write_bytes(b"nothing to see")
    out = fog.folder / "mixed"
    ran = fog.run(pictures["in.png"], bad, "-o", out, code=1)
    assert "error: 1 of 2 images failed: bad.png: not an image" in ran.error
    assert same(read(out / "in.png"), edges_of(pictures["in.png"]))
    assert not (out / "bad.png").exists()


@pytest.mark.parametrize(
    ("post", "expected"),
    [
        ("invert", lambda edges, colour: 255 - edges),
        ("resize width=320", lambda edges, colour: _smaller(edges, 320)),
        ("overlay colour=red", lambda edges, colour: _painted(edges, colour)),
        ("overlay colour=red | resize width=64", lambda e, c: _smaller(_painted(e, c), 64)),
    ],
)
def test_the_merged_image_is_post_processed(
    fog: Fog, pictures: dict[str, Path], post: str, expected: Callable[[Image, Image], Image]
) -> None:
    out = fog.folder / "post.png"
    fog.run(pictures["in.png"], "-o", out, "--post", post)
    edges = edges_of(pictures["in.png"])
    assert same(read(out), expected(edges, read(pictures["in.png"])))


def test_a_gray_pipeline_sends_one_channel_of_a_colour_photo(
    fog: Fog, pictures: dict[str, Path]
) -> None:
    ran = fog.run(pictures["in.png"], "-o", fog.folder / "out.png", "--tiles", "grid 1x1")
    assert ran.report["wire_bytes"]["out"] < 1.1 * 480 * 640


def test_an_ordinary_job_runs_through_a_configured_name(
    fog: Fog, pictures: dict[str, Path]
) -> None:
    config = fog.folder / "own.yaml"
    config.write_text("pipelines: {negative: gray | invert}\npost: invert\n")
    done = fog.command(
        "--config",
        str(config),
        *("run", str(pictures["in.png"]), "-o", "named.png", "--pipeline", "negative"),
    )
    assert done.returncode == 0, done.stderr
    assert same(read(fog.folder / "named.png"), gray_of(pictures["in.png"]))


def test_what_the_facts_do_not_list_is_said(fog: Fog, pictures: dict[str, Path]) -> None:
    pipeline = "gray | otsu | components most=1"
    ran = fog.run(pictures["in.png"], "-o", fog.folder / "out.json", "--pipeline", pipeline)
    facts = json.loads((fog.folder / "out.json").read_text())
    assert facts["left_out"] > 0
    assert f"facts: {facts['note']}" in ran.err


def test_nobody_is_left_of_a_run(fog: Fog, pictures: dict[str, Path]) -> None:
    with fog.probe("fog/v1/gateways/#", client_id="watch-run") as client:
        fog.run(pictures["in.png"], "-o", fog.folder / "out.png")
        heard = client.inbox.all()
    said = [one for one in heard if isinstance(one, Received) and one.topic.endswith("/status")]
    assert [one.payload for one in said] == [b"online", b"offline"]
    with fog.probe("fog/v1/gateways/#", "fog/v1/devices/eya/status", client_id="after") as client:
        client.message("fog/v1/devices/eya/status")
        left = [one.topic for one in client.inbox.all() if isinstance(one, Received)]
    assert not [topic for topic in left if "-run-" in topic]


def test_runs_share_the_fleet_with_a_serving_gateway(fog: Fog, pictures: dict[str, Path]) -> None:
    gateway = fog.serve()
    runs = [
        fog.start_run(pictures["in.jpg"], "-o", f"shared-{number}.png", "--tiles", "size 64x64")
        for number in range(2)
    ]
    with fog.probe("fog/v1/replies/shared/image", client_id="submits") as client:
        client.publish("fog/v1/submit/edges/shared", pictures["in.jpg"].read_bytes())
        answer = client.message("fog/v1/replies/shared/image", within=60).payload
    expected = edges_of(pictures["in.jpg"])
    assert same(cv2.imdecode(np.frombuffer(answer, np.uint8), cv2.IMREAD_UNCHANGED), expected)
    for number, running in enumerate(runs):
        assert running.ended() == 0, running.said
        assert same(read(fog.folder / f"shared-{number}.png"), expected)
    assert gateway.stop() == 0


def test_without_a_device_the_gateway_waits_until_the_timeout(lone_fog: Fog) -> None:
    image = lone_fog.save("in.png", photo())
    ran = lone_fog.run(
        *(image, "-o", "out.png", "--timeout", "1.5"), code=1, GATEWAY__LOCAL_AFTER="0.5"
    )
    assert "waiting, since gateway.local is never" in ran.err
    assert "in.png: not done after 1.5 s (--timeout): 0 of " in ran.error
    assert "devices online: none" in ran.error
    assert not (lone_fog.folder / "out.png").exists()


def test_without_a_device_local_auto_takes_over_and_says_so(lone_fog: Fog) -> None:
    image = lone_fog.save("in.png", photo())
    ran = lone_fog.run(
        *(image, "-o", "out.png", "--verify", "--tiles", "grid 3x3"),
        GATEWAY__LOCAL="auto",
        GATEWAY__LOCAL_AFTER="0.5",
    )
    assert "this gateway does the rest itself" in ran.err
    assert ran.report["devices"] == {"local": {"tiles": 9, "pixels": 480 * 640}}
    assert ran.report["wire_bytes"] == {"out": 0, "back": 0}
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))


def test_local_always_needs_no_device(lone_fog: Fog) -> None:
    image = lone_fog.save("in.png", photo())
    ran = lone_fog.run(image, "-o", "out.png", GATEWAY__LOCAL="always")
    assert set(ran.report["devices"]) == {"local"}
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))


@pytest.mark.parametrize("local", ["never", "auto"])
def test_without_a_broker_it_says_what_to_start_and_does_nothing(lone_fog: Fog, local: str) -> None:
    image = lone_fog.save("in.png", photo(40, 40))
    ran = lone_fog.run(
        *(image, "-o", "out.png"),
        code=3,
        BROKER__URL=f"mqtt://127.0.0.1:{free_port()}",
        BROKER__CONNECT_TIMEOUT_S="1",
        GATEWAY__LOCAL=local,
        GATEWAY__LOCAL_AFTER="0",
    )
    assert "mosquitto" in ran.error
    assert "broker.embedded: auto" in ran.error
    assert "no image was processed" in ran.error
    assert not (lone_fog.folder / "out.png").exists()


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws"])
def test_a_program_that_accepts_and_says_nothing_is_named_in_time(
    lone_fog: Fog, scheme: str
) -> None:
    image = lone_fog.save("in.png", photo(40, 40))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        ran = lone_fog.run(
            *(image, "-o", "out.png"),
            code=3,
            BROKER__URL=f"{scheme}://{address}",
            BROKER__CONNECT_TIMEOUT_S="3",
        )
    assert f"{address} accepts the connection and says nothing for 2.4 s" in ran.error
    assert "tried for 3 s" in ran.error


def test_this_machine_works_without_a_broker_only_if_it_always_works(lone_fog: Fog) -> None:
    image = lone_fog.save("in.png", photo())
    lone_fog.run(
        *(image, "-o", "out.png", "--tiles", "size 64x64"),
        BROKER__URL=f"mqtt://127.0.0.1:{free_port()}",
        BROKER__CONNECT_TIMEOUT_S="0.1",
        GATEWAY__LOCAL="always",
    )
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))


def test_a_run_starts_a_broker_where_it_may_and_none_is(lone_fog: Fog) -> None:
    image = lone_fog.save("in.png", photo())
    ran = lone_fog.run(
        *(image, "-o", "out.png"),
        BROKER__URL=f"mqtt://127.0.0.1:{free_port()}",
        BROKER__EMBEDDED="auto",
        GATEWAY__LOCAL="auto",
        GATEWAY__LOCAL_AFTER="0.2",
    )
    assert "started a broker of our own (" in ran.err
    assert "this gateway took" in ran.err
    assert set(ran.report["devices"]) == {"local"}
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))


def test_ctrl_c_ends_a_run_and_leaves_no_half_file(lone_fog: Fog) -> None:
    image = lone_fog.save("in.png", photo())
    lone_fog.fleet("eya", speed=20_000)
    running = lone_fog.start_run(image, "-o", "out.png", "--tiles", "size 64x64")
    running.says(" of 80 tiles  ")
    running.signal(signal.SIGINT)
    assert running.ended(within=15) == 130
    assert "Traceback" not in running.said
    assert not list(lone_fog.folder.glob("*out.png*"))


def test_devices_and_gateway_and_broker_start_in_any_order(lone_fog: Fog) -> None:
    image = lone_fog.save("in.png", photo())
    lone_fog.broker.stop()
    early = lone_fog.device("eya")
    early.says("trying again")
    running = lone_fog.start_run(
        *(image, "-o", "out.png", "--tiles", "size 64x64", "--verify"),
        BROKER__CONNECT_TIMEOUT_S="60",
    )
    lone_fog.broker.start()
    early.says("eya is online")
    late = lone_fog.device("manar")
    assert running.ended() == 0, running.said
    assert same(read(lone_fog.folder / "out.png"), edges_of(image))
    assert early.stop() == 0
    late.says("manar is online")
    assert late.stop() == 0


def _smaller(image: Image, width: int) -> Image:
    height = round(image.shape[0] * width / image.shape[1])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _painted(edges: Image, colour: Image) -> Image:
    painted = colour.copy()
    painted[edges != 0] = (0, 0, 255)
    return painted


def test_two_images_of_one_name_keep_both_results(fog: Fog) -> None:
    first, second = fog.save("twin.png", photo()), fog.save("twin.jpg", photo(seed=9))
    out = fog.folder / "check_tiles"
    fog.run(first, second, "-o", f"{out}/")
    assert same(read(out / "twin.png"), edges_of(first))
    assert same(read(out / "twin-2.png"), edges_of(second))


def test_an_image_is_never_replaced_by_its_result(fog: Fog) -> None:
    path = fog.save("precious.png", photo())
    assert "is one of the images" in fog.run(path, "-o", path, code=2).error
    assert "is one of the images" in fog.run(path, "-o", f"{path.parent}/", code=2).error


def test_one_image_may_go_to_a_new_folder(fog: Fog) -> None:
    path = fog.save("lonely.png", photo())
    fog.run(path, "-o", f"{fog.folder / 'new'}/")
    assert same(read(fog.folder / "new" / "lonely.png"), edges_of(path))


def test_what_is_no_file_is_not_read(fog: Fog) -> None:
    assert "not a file" in fog.run("/dev/zero", "-o", fog.folder / "zero.png", code=1).error
