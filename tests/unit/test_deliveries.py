"""Results go to several places, and what they did not reach is told."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from rich.console import Console

from fogmqtt.cli.retry import retry
from fogmqtt.config import CallbackSettings, GatewayConfig, GatewaySettings
from fogmqtt.errors import ConfigError, UsageError
from fogmqtt.gateway.server import http_post
from fogmqtt.gateway.server.config_checks import check_deliveries, check_outbox
from fogmqtt.gateway.server.http_post import PostFailed, post_file
from fogmqtt.transport.base import Connected, Received
from fogmqtt.transport.memory import MemoryTransport
from fogmqtt.wire import service_messages as msg
from tests.fog import Inbox, free_port, wait_for
from tests.receiver import Receiver
from tests.service_client import ServiceClient
from tests.serving import PICTURE, Serving
from tests.unit.test_service import client

PIPELINES = {"edges": "gray | canny", "measure": "gray | histogram"}
SECRET = b"s3cret"


@contextmanager
def serving(
    folder: Path, deliver: str, url: str = "", *, works: bool = True, keep_s: float = 100.0
) -> Iterator[Serving]:
    """A gateway with one callback, `office`, and one place of results for both pipelines."""
    (folder / "secret").write_bytes(SECRET + b"\n")
    with Serving(
        str(folder / "spool"),
        "always" if works else "never",
        outbox=str(folder / "outbox"),
        pipelines=PIPELINES,
        deliveries=dict.fromkeys(PIPELINES, deliver),
        callbacks={"office": url} if url else {},
        callback=CallbackSettings(str(folder / "secret"), 5.0, keep_s),
    ) as made:
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fogmqtt.gateway.server.callbacks._FIRST_PAUSE_S", 0.02)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "certs"
    script = Path(__file__).parents[2] / "broker" / "make-certs.sh"
    environment = os.environ | {"FOGMQTT_CERTS": str(folder)}
    subprocess.run([script, "broker", "localhost"], check=True, env=environment)
    return folder


def submit(made: Serving, pipeline: str = "edges", data: bytes = PICTURE) -> None:
    made.client.publish(f"fog/v1/submit/{pipeline}/me", data)


def status(made: Serving, *states: str) -> dict[str, Any]:
    while True:
        one: dict[str, Any] = json.loads(made.heard.take(Received, within=60).payload)
        if one["state"] in (states or ("done", "failed")):
            return one


def test_a_result_is_posted_with_a_signature_of_its_body(tmp_path: Path) -> None:
    with Receiver() as receiver, serving(tmp_path, "office outbox", receiver.url) as made:
        submit(made)
        post, ended = receiver.take(), status(made, "done")
        assert post.path == "/take?from=fog"
        assert post.body == Path(ended["file"]).read_bytes()
        signature = hmac.new(SECRET, post.body, hashlib.sha256).hexdigest()
        assert post.headers["X-Hub-Signature-256"] == f"sha256={signature}"
        assert post.headers["Content-Type"] == "image/png"
        assert post.headers["Fogmqtt-Job"] == post.headers["Idempotency-Key"] == ended["job"]
        assert post.headers["Fogmqtt-State"] == "done"
        assert unquote(post.headers["Fogmqtt-Name"]) == "submit/edges/me"
        assert "undelivered" not in ended
        folder = tmp_path / "spool" / "callbacks"
        wait_for(lambda: not list(folder.iterdir()), what="nothing left to send")


def test_facts_are_posted_of_a_measuring_pipeline(tmp_path: Path) -> None:
    with Receiver() as receiver, serving(tmp_path, "office", receiver.url) as made:
        submit(made, "measure")
        post = receiver.take()
        assert post.headers["Content-Type"] == "application/json"
        assert json.loads(post.body)


def test_the_reason_of_a_failed_job_is_posted(tmp_path: Path) -> None:
    with Receiver() as receiver, serving(tmp_path, "office", receiver.url) as made:
        submit(made, data=b"\x89PNG but no image")
        post = receiver.take()
        assert post.headers["Fogmqtt-State"] == "failed"
        assert json.loads(post.body)["error"] == status(made)["error"]


def test_a_receiver_that_fails_is_tried_again_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answers = [(500, {}), (503, {"Retry-After": "0"})]
    with Receiver(answers) as receiver, serving(tmp_path, "office", receiver.url) as made:
        submit(made)
        assert len({receiver.take().body for _ in range(3)}) == 1
        said = [status(made, "done") for _ in range(3)]
    assert ["undelivered" in one for one in said] == [False, True, False]
    assert said[1]["undelivered"]["office"].startswith("it answered 500")
    assert "callback office: it answered 500" in caplog.text
    assert "callback office was sent after all" in caplog.text


def test_a_callback_survives_a_restart_of_the_gateway(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with serving(tmp_path, "office", url) as before:
        submit(before)
        job = status(before, "done")["job"]
        assert "Connection refused" in status(before, "done")["undelivered"]["office"]
        # The job itself ends.
        wait_for(lambda: not list((tmp_path / "spool").glob("j*")), what="an empty spool")
    with Receiver(port=port) as receiver, serving(tmp_path, "office", url):
        assert receiver.take().headers["Fogmqtt-Job"] == job


def test_a_callback_is_given_up_after_a_while_and_the_status_says_so(tmp_path: Path) -> None:
    with (
        Receiver([(500, {})]) as receiver,
        serving(tmp_path, "office", receiver.url, keep_s=0) as made,
    ):
        submit(made)
        assert "undelivered" not in (ended := status(made, "done"))
        reason = status(made, "done")["undelivered"]["office"]
    why = "given up after one try: it answered 500 Internal Server Error"
    assert reason == f"{why}; fog-gateway retry {ended['job']}.office"


def test_a_callback_that_was_given_up_is_listed_and_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fogmqtt.gateway.server.callbacks._LOOK_S", 0.05)
    config = GatewayConfig(gateway=GatewaySettings(spool=str(tmp_path / "spool")))
    said = Console(file=StringIO(), width=400)

    def listed() -> str:
        assert said.file.truncate(0) is not None  # type: ignore[attr-defined]
        retry(config, None, said, every=False)
        return said.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    with (
        Receiver([(500, {})]) as receiver,
        serving(tmp_path, "office", receiver.url, keep_s=0) as made,
    ):
        submit(made)
        first = receiver.take()
        name = f"{status(made, 'done')['job']}.office"
        assert "undelivered" in status(made, "done")
        assert f"{name}  " in listed()
        assert "callback office: given up after one try: it answered 500" in listed()
        with pytest.raises(UsageError, match=r"no callback .* was given up"):
            retry(config, "j0.office", said, every=False)
        retry(config, name, said, every=False)
        again = receiver.take()
        assert again.body == first.body
        assert again.headers["Idempotency-Key"] == first.headers["Idempotency-Key"]
    assert "no dead letters" in listed()


def test_the_card_of_a_job_says_where_its_result_is_missing_and_has_it_sent_again(
    tmp_path: Path,
) -> None:
    def shown(page: ServiceClient, job: str, places: list[str]) -> msg.JobCard:
        wait_for(lambda: list(page.card(job).undelivered) == places, what=f"{places} undelivered")
        return page.card(job)

    with Receiver([(500, {}), (500, {})]) as receiver:
        with serving(tmp_path, "office", receiver.url, keep_s=0) as made:
            submit(made)
            job = status(made, "done")["job"]
            page = client(made)
            page.ended(job)
            missing = shown(page, job, ["office"]).undelivered["office"]
            assert missing.outlook == "given-up"
            assert missing.reason == "given up after one try: it answered 500 Internal Server Error"
            # Its path may be a secret.
            assert missing.server == f"http://127.0.0.1:{receiver.port}"
        with serving(tmp_path, "office", receiver.url) as made:  # it outlives the gateway
            page = client(made)
            shown(page, job, ["office"])
            asked = {"job": job, "callback": "office", "who": "aziz"}
            card = page.ask(msg.RetryCallback, msg.JobAnswer, **asked).job
            assert card.state == "done"
            assert [receiver.take().headers["Fogmqtt-Job"] for _ in range(3)] == [job] * 3
            shown(page, job, [])
            assert page.refused(msg.RetryCallback, **asked).kind == "invalid"
            other = page.refused(msg.RetryCallback, job=job, callback="../x")
            assert "no callback" in other.sentence
            assert page.refused(msg.RetryCallback, job="j0", callback="office").kind == "not-found"


def test_the_card_says_what_comes_of_a_callback_that_is_tried_again(tmp_path: Path) -> None:
    with (
        Receiver([(503, {"Retry-After": "0.5"})]) as receiver,
        serving(tmp_path, "office", receiver.url) as made,
    ):
        submit(made)
        job, page = status(made, "done")["job"], client(made)
        wait_for(lambda: page.card(job).undelivered, what="the first failure")
        assert page.card(job).undelivered["office"].outlook == "again"
        wait_for(lambda: not page.card(job).undelivered, what="the second try")


def test_a_receiver_with_tls_is_verified_by_a_private_authority(
    tmp_path: Path, certificates: Path
) -> None:
    (tmp_path / "body").write_bytes(b"a result")
    ca = str(certificates / "ca.crt")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates / "broker.crt", certificates / "broker.key")

    def post(url: str, ca: str) -> None:
        post_file(http_post.Receiver(url, "", 5.0, ca), tmp_path / "body", {})

    with Receiver(tls=server) as receiver:
        post(receiver.url, ca)
        assert receiver.take().body == b"a result"
        with pytest.raises(PostFailed, match=r"by the authorities of this machine: .*callback\.ca"):
            post(receiver.url, "")
        with pytest.raises(PostFailed, match=r"127\.0\.0\.1 is not accepted by .* mismatch"):
            post(receiver.url.replace("localhost", "127.0.0.1"), ca)
    with pytest.raises(ConfigError, match=r"callback\.ca: .*give a PEM file"):
        check_deliveries(GatewayConfig(callback=CallbackSettings(ca=str(tmp_path / "body"))))


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with Receiver() as other, Receiver([(307, {"Location": other.url})]) as receiver:
        with serving(tmp_path, "office", receiver.url) as made:
            submit(made)
            status(made, "done")
            reason = status(made, "done")["undelivered"]["office"]
        assert f"a redirect to {other.url}, which is not followed" in reason
        assert other.posts.all() == []


def test_a_callback_that_the_configuration_no_longer_names_is_not_called(tmp_path: Path) -> None:
    with Receiver() as receiver:
        with serving(tmp_path, "office reply", receiver.url, works=False) as before:
            submit(before)
            status(before, "accepted")
        with serving(tmp_path, "reply") as after:
            ended = status(after, "done")
        assert "'office' is no place for results" in ended["undelivered"]["office"]
        assert receiver.posts.all() == []


@pytest.mark.parametrize(("deliver", "name"), [("latest", "edges"), ("latest=yard", "yard")])
def test_the_newest_result_stays_on_its_topic(tmp_path: Path, deliver: str, name: str) -> None:
    with serving(tmp_path, deliver) as made:
        submit(made)
        assert status(made)["state"] == "done"
        late = Inbox()
        reader = MemoryTransport(made.broker, "late", late.put)
        reader.subscribe("fog/v1/latest/#")
        reader.start()
        late.take(Connected)
        (kept,) = late.all()
        assert isinstance(kept, Received)
        assert (kept.topic, kept.retained) == (f"fog/v1/latest/{name}/image", True)
        assert kept.properties.content_type == "image/png"


def test_a_measuring_pipeline_has_its_newest_facts_there_too(tmp_path: Path) -> None:
    with serving(tmp_path, "latest") as made:
        submit(made, "measure")
        status(made)
        topics = [topic for topic in made.broker.retained() if "/latest/" in topic]
    assert topics == ["fog/v1/latest/measure/facts", "fog/v1/latest/measure/image"]


@pytest.mark.parametrize(
    ("deliver", "replied", "filed"),
    [("reply", True, False), ("outbox", False, True), ("both", True, True), ("auto", True, False)],
)
def test_each_pipeline_has_its_own_places(
    tmp_path: Path, deliver: str, replied: bool, filed: bool
) -> None:
    with serving(tmp_path, deliver) as made:
        made.client.subscribe("fog/v1/replies/me/image")
        submit(made)
        ended, topics = None, []
        while not ended:
            message = made.heard.take(Received, within=60)
            topics.append(message.topic)
            if message.topic.endswith("status"):
                said = json.loads(message.payload)
                ended = said if said["state"] == "done" else None
    assert ("fog/v1/replies/me/image" in topics) is replied
    assert ("file" in ended) is filed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deliveries": {"edges": "outbx"}}, "deliveries.edges: 'outbx' is no place .* outbox\\?"),
        ({"deliveries": {"edges": ""}}, "deliveries.edges: no place for results"),
        ({"deliveries": {"edges": "latest=A b"}}, "'latest=A' has no name for its topic"),
        ({"callbacks": {"office": "http://x/"}}, "callbacks.office: nothing is sent there"),
        ({"callbacks": {"reply": "http://x/"}}, "callbacks.reply: 'reply' has a meaning"),
        ({"callbacks": {"office": "ftp://x/"}}, "callbacks.office: 'ftp://x/' is no URL to call"),
        ({"callbacks": {"office": "http://x:99999/"}}, "is no URL to call"),
        ({"callbacks": {"office": "https:///x"}}, "is no URL to call"),
        ({"callbacks": {"office": "http://a:b@x/"}}, "callbacks.office: the URL of x has a user"),
        ({"callback": CallbackSettings("/nowhere/secret")}, "callback.secret_file: /nowhere"),
        (
            {"callbacks": {"office": "http://x/"}, "deliveries": {"edges": "office"}},
            "gateway.spool: callbacks wait there",
        ),
    ],
)
def test_a_configuration_that_cannot_deliver_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    config = GatewayConfig(gateway=GatewaySettings(inbox="", outbox="", spool=""))
    with pytest.raises(ConfigError, match=reason):
        check_deliveries(replace(config, **changes))


def test_a_pipeline_that_delivers_to_the_outbox_needs_one() -> None:
    config = GatewayConfig(
        gateway=GatewaySettings(inbox="", outbox=""), deliveries={"edges": "outbox"}
    )
    with pytest.raises(ConfigError, match=r"gateway\.outbox: 'outbox' delivery needs a folder"):
        check_outbox(config)
