"""A serving gateway: images from any MQTT client, answers and words on topics, clean ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Received
from fogmqtt.transport.probe import is_listening, own_url
from tests.fog import Probe, free_port, need, probe, wait_for
from tests.misbehaving import workers_of
from tests.processes import (
    Fog,
    Program,
    edges_of,
    fog_at,
    gray_of,
    has_opencv,
    photo,
    read,
    same,
    status_becomes,
    until,
)

pytestmark = pytest.mark.broker

REPLY = "fog/v1/replies/me"


@pytest.fixture(scope="module")
def gateway(fog: Fog) -> Iterator[Program]:
    """A gateway that serves the module's fleet all along: whatever it is sent, it lives."""
    serving = fog.serve(LIMITS__MAX_FILE_BYTES="2000000", LIMITS__MAX_PIXELS="1000000")
    yield serving
    assert serving.stop() == 0, serving.said
    assert "Traceback" not in serving.said


@pytest.fixture(scope="module")
def picture(fog: Fog) -> Path:
    return fog.save("in.jpg", photo())


@pytest.fixture
def me(fog: Fog, gateway: Program) -> Iterator[Probe]:
    with fog.probe("fog/v1/replies/#", client_id="me") as client:
        yield client


def decoded(payload: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def final(client: Probe, topic: str = f"{REPLY}/status") -> Any:
    """The status that ends a job."""
    while True:
        status = json.loads(client.message(topic, within=60).payload)
        if status["state"] in ("done", "failed"):
            return status


def submit(client: Probe, data: bytes, pipeline: str = "edges", reply: str = "me") -> None:
    client.publish(f"fog/v1/submit/{pipeline}/{reply}", data)


def offered(me: Probe, data: bytes, **where: str) -> str:
    """Submit what cannot be done; returns the reason."""
    submit(me, data, **where)
    status = final(me, f"fog/v1/replies/{where.get('reply', 'me')}/status")
    assert status["state"] == "failed"
    assert "image" not in status.get("file", "")
    return str(status["error"])


@pytest.mark.parametrize("version", ["5", "311"])
def test_any_stock_client_submits_a_file_and_gets_a_file(
    fog: Fog, gateway: Program, picture: Path, version: str
) -> None:
    clients = "mosquitto-clients"
    need(shutil.which("mosquitto_pub"), clients, f"sudo apt install {clients}")
    at = ["-V", version, "-p", str(fog.broker.port), "-q", "1"]
    topic, out = f"fog/v1/replies/v{version}/image", fog.folder / f"answer-{version}"
    # A session that the broker keeps: so nothing is missed between the two.
    session = ["-i", f"stock-{version}", "-c", "-t", topic]
    session += ["-x", "100"] if version == "5" else []
    subprocess.run(["mosquitto_sub", *at, *session, "-E"], check=True, timeout=20)
    publish = ["mosquitto_pub", *at, "-t", f"fog/v1/submit/edges/v{version}", "-f", str(picture)]
    subprocess.run(publish, check=True, timeout=20)
    with out.open("wb") as answer:
        listen = ["mosquitto_sub", *at, *session, "-C", "1", "-N", "-W", "40"]
        subprocess.run(listen, stdout=answer, check=True, timeout=50)
    assert same(decoded(out.read_bytes()), edges_of(picture))


def test_the_status_topic_tells_the_way_of_a_job(me: Probe, picture: Path) -> None:
    submit(me, picture.read_bytes())
    states = []
    while not states or states[-1]["state"] not in ("done", "failed"):
        states.append(json.loads(me.message(f"{REPLY}/status", within=60).payload))
    assert states[0]["state"] == "accepted"
    last = states[-1]
    assert last["state"] == "done"
    assert last["done"] == last["total"] == sum(last["devices"].values())
    assert {one["job"] for one in states} == {last["job"]}
    assert last.get("error") is None


def test_a_jobs_own_topic_is_retained(fog: Fog, me: Probe, picture: Path) -> None:
    submit(me, picture.read_bytes())
    job = final(me)["job"]
    topic = f"fog/v1/jobs/{job}/status"
    with fog.probe(topic, client_id="late") as late:
        message = late.message(topic)
        assert message.retained
        status = json.loads(message.payload)
        assert (status["state"], status["gateway"]) == ("done", "mariem")


def test_the_answer_is_the_image_alone(me: Probe, picture: Path) -> None:
    submit(me, picture.read_bytes())
    answer = me.message(f"{REPLY}/image", within=60)
    assert not answer.retained
    assert same(decoded(answer.payload), edges_of(picture))


def test_many_submissions_at_once_are_all_done(me: Probe) -> None:
    pictures = [photo(100, 140, number) for number in range(12)]
    for number, picture in enumerate(pictures):
        submit(me, cv2.imencode(".png", picture)[1].tobytes(), reply=f"shot-{number}")
    answers: dict[str, bytes] = {}
    while len(answers) < len(pictures):
        message = me.inbox.take(Received, within=60)
        if message.topic.endswith("/image"):
            answers[message.topic.split("/")[-2]] = message.payload
    for number, picture in enumerate(pictures):
        gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        assert same(decoded(answers[f"shot-{number}"]), cv2.Canny(gray, 50, 150))


def test_an_unknown_pipeline_is_named_with_the_nearest(me: Probe, picture: Path) -> None:
    error = offered(me, picture.read_bytes(), pipeline="edgs")
    assert "no pipeline 'edgs'" in error
    assert "edges" in error


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (b"this is no image", "not an image"),
        (cv2.imencode(".png", photo(90, 90))[1].tobytes()[:4000], "truncated"),
        (cv2.imencode(".png", np.zeros((1001, 1000), np.uint8))[1].tobytes(), "limits.max_pixels"),
        (bytes(2_000_001), "limits.max_file_bytes"),
    ],
    ids=["empty", "words", "truncated", "too many pixels", "too many bytes"],
)
def test_what_is_no_image_is_refused_with_the_reason(me: Probe, data: bytes, says: str) -> None:
    assert says in offered(me, data)


@pytest.mark.parametrize("reply", ["x" * 33, "Me", "a b", "é"])
def test_an_impossible_reply_name_is_told_where_it_asked(me: Probe, reply: str) -> None:
    error = offered(me, b"whatever", reply=reply)
    assert "1 to 32 of a-z, 0-9, _ and -" in error


def test_a_reply_name_too_long_to_answer_costs_nobody_anything(me: Probe, picture: Path) -> None:
    submit(me, b"whatever", reply="x" * 60_000)
    submit(me, picture.read_bytes())
    assert final(me)["state"] == "done"


def test_statuses_read_like_a_sentence(fog: Fog, gateway: Program) -> None:
    topics = {f"fog/v1/devices/{name}/status" for name in ("eya", "oumayma", "manar")}
    expected = dict.fromkeys(topics | {"fog/v1/gateways/mariem/status"}, b"online")
    with fog.probe("fog/v1/+/+/status", client_id="reader") as reader:

        def said() -> dict[str, bytes]:
            return {
                one.topic: one.payload
                for one in reader.inbox.all()
                if isinstance(one, Received) and "/jobs/" not in one.topic
            }

        wait_for(lambda: said().keys() >= expected.keys(), what="retained statuses")
        assert said() == expected


def test_base64_makes_tiles_and_results_readable(fog: Fog, picture: Path, tmp_path: Path) -> None:
    with (
        fog_at(tmp_path, fog.broker, GATEWAY__ID="reader") as other,
        fog.probe(
            "fog/v1/devices/+/tiles", "fog/v1/gateways/+/results/+", client_id="eavesdrops"
        ) as client,
    ):
        ran = other.run(
            *(picture, "-o", "out.png", "--tiles", "grid 2x2", "--pipeline", "gray | invert"),
            WIRE__ENCODING="base64",
        )
        assert same(read(tmp_path / "out.png"), 255 - gray_of(picture))
        heard = [one for one in client.inbox.all() if isinstance(one, Received)]
    tiles = [json.loads(bytes(one.payload)) for one in heard if one.topic.endswith("/tiles")]
    results = [json.loads(bytes(one.payload)) for one in heard if "/results/" in one.topic]
    assert {one["tile"] for one in tiles} == {0, 1, 2, 3}
    assert tiles[0]["stage"] == [["invert", {}]] or "invert" in json.dumps(tiles[0]["stage"])
    assert {one["type"] for one in results} >= {"accepted", "result"}
    assert ran.report["tiles"] == 4


def test_the_finished_image_is_post_processed_and_encoded_as_configured(
    lone_fog: Fog,
) -> None:
    image = lone_fog.save("in.png", photo(120, 160))
    lone_fog.serve(
        POST="overlay colour=red | invert",
        GATEWAY__FORMAT="bmp",
        GATEWAY__LOCAL="always",
    )
    with lone_fog.probe(f"{REPLY}/image", client_id="me") as client:
        submit(client, image.read_bytes())
        answer = client.message(f"{REPLY}/image", within=60).payload
    assert answer[:2] == b"BM"
    painted = read(image)
    painted[edges_of(image) != 0] = (0, 0, 255)
    assert same(decoded(answer), 255 - painted)


def test_a_retained_submission_is_refused(lone_fog: Fog) -> None:
    image = lone_fog.save("in.png", photo(120, 160))
    with lone_fog.probe(f"{REPLY}/status", client_id="me") as client:
        client.publish("fog/v1/submit/edges/me", image.read_bytes(), retain=True)
        # Only 3.1.1 hears of it: MQTT 5 keeps what is retained from shared subscriptions.
        lone_fog.serve(BROKER__PROTOCOL="3.1.1", GATEWAY__LOCAL="always")
        status = final(client)
    assert status["state"] == "failed"
    assert "publish it without retain" in status["error"]


@pytest.mark.parametrize("isolate", ["auto", "always"])
def test_a_device_starts_its_worker_before_there_is_a_gateway(lone_fog: Fog, isolate: str) -> None:
    eya = lone_fog.device("eya", DEVICE__ISOLATE=isolate)
    until(lambda: bool(workers_of(eya.process.pid)), "a worker without a gateway")
    assert not has_opencv(eya)


def test_sigterm_says_offline_and_leaves_no_process(lone_fog: Fog) -> None:
    topic = "fog/v1/gateways/mariem/status"
    with lone_fog.probe(topic, client_id="watch") as client:
        serving = lone_fog.serve()
        status_becomes(client, topic, b"online")
        children = psutil.Process(serving.process.pid).children(recursive=True)
        assert serving.stop() == 0
        status_becomes(client, topic, b"offline")
        assert not [child for child in children if child.is_running()]
    with lone_fog.probe(topic, client_id="later") as client:
        message = client.message(topic)
        assert (message.payload, message.retained) == (b"offline", True)
    assert "Traceback" not in serving.said


def test_sigkill_lets_the_last_will_say_offline(lone_fog: Fog) -> None:
    topic = "fog/v1/gateways/mariem/status"
    with lone_fog.probe(topic, client_id="watch") as client:
        serving = lone_fog.serve()
        status_becomes(client, topic, b"online")
        serving.kill()
        status_becomes(client, topic, b"offline")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_what_was_accepted_is_done_by_the_next_life(lone_fog: Fog, end: str) -> None:
    image = lone_fog.save("in.png", photo())
    first = lone_fog.serve()
    with lone_fog.probe(f"{REPLY}/#", client_id="me") as client:
        submit(client, image.read_bytes())
        assert json.loads(client.message(f"{REPLY}/status").payload)["state"] == "accepted"
        first.kill() if end == "kill" else first.stop()
        lone_fog.serve(GATEWAY__LOCAL="always").says("accepted before and is not delivered")
        answer = client.message(f"{REPLY}/image", within=60).payload
        assert same(decoded(answer), edges_of(image))
        assert final(client)["state"] == "done"
        until(lambda: not list((lone_fog.folder / "spool").glob("j*")), "an empty spool")


def test_of_two_gateways_under_one_id_one_leaves_and_says_why(lone_fog: Fog) -> None:
    one = lone_fog.serve()
    two = lone_fog.start_serving(GATEWAY__SPOOL="spool2", GATEWAY__INBOX="inbox2")
    until(lambda: one.running != two.running, "one to leave")
    left, stayed = (two, one) if one.running else (one, two)
    assert left.ended() == 2
    assert "is already running under the id 'mariem'" in left.said.splitlines()[-1]
    status = "fog/v1/gateways/mariem/status"
    with lone_fog.probe(f"{REPLY}/status", status, client_id="me") as client:
        status_becomes(client, status, b"online")
        submit(client, b"no image")
        assert final(client)["state"] == "failed"
    assert stayed.running


def test_two_gateways_do_not_share_a_spool(lone_fog: Fog) -> None:
    lone_fog.serve()
    other = lone_fog.start_serving(GATEWAY__ID="oscar")
    assert other.ended() == 2
    assert "error: gateway.spool: another gateway uses" in other.said


def test_it_says_in_four_lines_what_it_started_where_it_listens_and_what_it_wrote(
    lone_fog: Fog,
) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    gateway = lone_fog.serve(BROKER__URL=url, BROKER__EMBEDDED="auto")
    broker, inbox, made, online = gateway.said.splitlines()
    folder = lone_fog.folder
    assert f"started a broker of our own (mosquitto) at {own_url(url)}" in broker
    assert f"watching {folder / 'inbox'} for images; results go to {folder / 'outbox'}" in inbox
    assert f"made {folder / 'inbox'} and {folder / 'spool'}; accepted images stay in" in made
    assert "published to fog/v1/submit/edges/NAME" in online
    assert "its result comes to fog/v1/replies/NAME/image" in online
    assert {path.name for path in folder.iterdir() if path.is_dir()} >= {"inbox", "spool"}

    assert gateway.stop() == 0
    (last,) = gateway.said.splitlines()[4:]
    assert "mariem exits; 0 image(s) wait for its next start" in last
    assert "WARNING" not in gateway.said
    again = lone_fog.serve(BROKER__URL=url, BROKER__EMBEDDED="auto")
    assert "made no folder" in again.said


def _look_inside(serving: Program) -> None:
    """Run Mosquitto's own program with the options that the log names."""
    (options,) = re.findall(r"mosquitto_pub and mosquitto_sub need (.*)", serving.said)
    topic = "fog/v1/gateways/mariem/status"
    command = ["sh", "-c", f"mosquitto_sub {options} -t {topic} -C 1 -W 30"]
    shown = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert shown.stdout.strip() == b"online"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_an_embedded_broker_ends_with_its_gateway(lone_fog: Fog, end: signal.Signals) -> None:
    configured = f"mqtt://127.0.0.1:{free_port()}"
    url = own_url(configured)
    serving = lone_fog.serve(BROKER__URL=configured, BROKER__EMBEDDED="auto")
    assert f"started a broker of our own (mosquitto) at {url}" in serving.said
    _look_inside(serving)
    assert not is_listening(configured)
    # A gateway may have other children, such as the one that examines its operators.
    children = psutil.Process(serving.process.pid).children()
    (broker,) = (child for child in children if child.name() == "mosquitto")
    with probe(url, "fog/v1/gateways/mariem/status") as client:
        status_becomes(client, "fog/v1/gateways/mariem/status", b"online")
    serving.signal(end)
    assert serving.ended() in (0, -signal.SIGKILL)
    broker.wait(10)
    assert not is_listening(url)


def test_a_broker_of_our_own_leaves_the_port_free_and_gives_way(lone_fog: Fog) -> None:
    """The system's broker may start after the gateway: devices and clients find either."""
    image = lone_fog.save("in.png", photo(200, 200))
    lone_fog.broker.stop()
    lone_fog.settings |= {"BROKER__EMBEDDED": "auto"}
    gateway = lone_fog.start_serving()
    gateway.says(f"mariem is online at {own_url(lone_fog.broker.url)}")
    device = lone_fog.device("eya")
    gateway.says("eya is online")
    assert set(lone_fog.run(image, "-o", "out.png").report["devices"]) == {"eya"}
    lone_fog.broker.start()
    gateway.says(f"mariem is online at {lone_fog.broker.url}")
    device.says(f"eya is online at {lone_fog.broker.url}")
    assert "a broker answers at" in gateway.said
    wait_for(lambda: not is_listening(own_url(lone_fog.broker.url)), what="the end of our own")
    with lone_fog.probe(f"{REPLY}/#", client_id="me") as client:
        submit(client, image.read_bytes())
        assert final(client)["state"] == "done"


def test_devices_of_every_order_of_starting_come_together(lone_fog: Fog) -> None:
    """Device, gateway, broker: what is there first waits for the others and says so."""
    image = lone_fog.save("in.png", photo(200, 200))
    lone_fog.broker.stop()
    lone_fog.device("eya").says("trying again")
    gateway = lone_fog.start_serving()
    gateway.says("no link")
    lone_fog.broker.start()
    gateway.says("mariem is online")
    gateway.says("eya is online")
    lone_fog.device("manar").says("manar is online")
    gateway.says("manar is online")
    with lone_fog.probe(f"{REPLY}/#", client_id="me") as client:
        submit(client, image.read_bytes())
        assert final(client)["state"] == "done"


def test_a_second_signal_ends_it_at_once(lone_fog: Fog) -> None:
    serving = lone_fog.serve()
    os.kill(serving.process.pid, signal.SIGSTOP)
    for _ in range(2):
        serving.signal(signal.SIGTERM)
        serving.signal(signal.SIGINT)
    serving.signal(signal.SIGCONT)
    assert serving.ended(within=10) in (0, 130)
