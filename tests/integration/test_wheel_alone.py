"""Where no Mosquitto is installed the broker of the wheel (iotcore) is all that is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fogmqtt.transport import embedded
from fogmqtt.transport.embedded import EmbeddedBroker
from fogmqtt.transport.link import Protocol
from fogmqtt.transport.probe import own_url
from tests.fog import RealBroker, probe
from tests.processes import PATIENCE_S, Fog, Program, edges_of, fog_at, photo, read, same, until

pytest.importorskip("iotcore")

pytestmark = pytest.mark.proof

BOTH: tuple[Protocol, ...] = (5, "3.1.1")
#: `fog-gateway` on a machine without Mosquitto.
WITHOUT_MOSQUITTO = """
import sys
from fogmqtt.cli.gateway import main
from fogmqtt.transport import embedded
assert callable(embedded._find_mosquitto)  # what is replaced exists
embedded._find_mosquitto = lambda: None
sys.exit(main())
"""


@pytest.fixture(params=BOTH)
def fog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fog]:
    """Nobody is there, and no broker."""
    settings = {"BROKER__PROTOCOL": str(request.param), "BROKER__EMBEDDED": "auto"}
    with fog_at(tmp_path, RealBroker(tmp_path), **settings) as made:
        yield made


def serving(fog: Fog) -> Program:
    """`fog-gateway --config …` with a broker of its own."""
    config = fog.folder / "config.yaml"
    config.write_text(f"broker: {{url: '{fog.broker.url}'}}\ngateway: {{deliver: both}}\n")
    gateway = fog._start("mariem", ["-c", WITHOUT_MOSQUITTO, "--config", str(config)], {})
    gateway.says("mariem is online")
    return gateway


def protocol_of(fog: Fog) -> Protocol:
    return 5 if fog.settings["BROKER__PROTOCOL"] == "5" else "3.1.1"


def test_the_demo_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MOSQUITTO, "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "broker   iotcore at " in done.stdout
    assert "0 of 240000 pixels differ" in done.stdout
    assert (tmp_path / "demo" / "edges.png").is_file()


def test_a_gateway_serves_submissions_its_inbox_and_other_commands(fog: Fog) -> None:
    gateway = serving(fog)
    assert "lost the broker" not in gateway.said
    fog.fleet("eya", "manar", speed=200_000)
    image = fog.save("in.png", photo(300, 400))
    expected = edges_of(image)
    with probe(own_url(fog.broker.url), "fog/v1/replies/me/#", protocol=protocol_of(fog)) as me:
        me.publish("fog/v1/submit/edges/me", image.read_bytes())
        (fog.folder / "reply.png").write_bytes(
            me.message("fog/v1/replies/me/image", within=PATIENCE_S).payload
        )
        assert json.loads(me.message("fog/v1/replies/me/status").payload)["state"] == "done"
    assert same(read(fog.folder / "reply.png"), expected)

    image.rename(fog.folder / "inbox" / "in.png")
    gateway.says("in.png: done")
    until((fog.folder / "outbox" / "in.png").exists, "the result in the outbox")
    assert same(read(fog.folder / "outbox" / "in.png"), expected)

    again = fog.save("again.png", photo(300, 400))
    ran = fog.run(again, "-o", "out.png", "--tiles", "size 64x64")
    assert set(ran.report["devices"]) == {"eya", "manar"}
    listed = json.loads(fog.command("devices", "--json").stdout)
    assert {device for device, info in listed.items() if info["online"]} == {"eya", "manar"}
    assert "lost the broker" not in gateway.said
    assert gateway.stop() == 0


def test_a_device_that_dies_there_is_lost_and_comes_back(fog: Fog) -> None:
    gateway = serving(fog)
    (eya,) = fog.fleet("eya")
    gateway.says("eya is online")
    eya.kill()
    gateway.says("eya is lost")
    fog.fleet("eya")
    until(lambda: gateway.said.count("eya is online") == 2, "eya to be back")


def test_a_gateway_uses_such_a_broker_that_somebody_else_runs(
    fog: Fog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_find_mosquitto", lambda: None)
    broker = EmbeddedBroker.start(fog.broker.url, protocol_of(fog))
    try:
        fog.fleet("eya")
        # docs/reliability.md: there without a session.
        gateway = fog.serve(GATEWAY__SESSION_S="0", GATEWAY__DELIVER="outbox")
        gateway.says("messages that the broker drops cannot be counted")
        image = fog.save("in.png", photo(300, 400))
        expected = edges_of(image)
        image.rename(fog.folder / "inbox" / "in.png")
        gateway.says("in.png: done")
        until((fog.folder / "outbox" / "in.png").exists, "the result in the outbox")
        assert same(read(fog.folder / "outbox" / "in.png"), expected)
        assert "lost the broker" not in gateway.said
        gateway.stop()
    finally:
        broker.stop()
