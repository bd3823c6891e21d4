"""What is wrong between machines is planted and named; what is right is not called wrong."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fogmqtt.wire.messages import DeviceInfo, encode
from tests.broker_site import USERS, Site
from tests.conformance import local_report
from tests.fog import RealBroker, need
from tests.joinable import JoinableFog
from tests.processes import Fog, private_fog
from tests.relay import Relay, slow_relay
from tests.strict import CUT, CUT_LATE, strict

pytestmark = pytest.mark.broker


#: What is said of a broker on loopback, and of a machine alone in its network.
LONELY = {"broker's network", "network"}


@pytest.fixture(scope="module")
def fog(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    del broker  # it skips or fails where Mosquitto is missing
    more = "max_packet_size 67108864\nsys_interval 1\nmax_queued_messages 100"
    with private_fog(tmp_path_factory.mktemp("fleet"), more) as made:
        yield made


@pytest.fixture(scope="module")
def joined(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JoinableFog]:
    """A gateway that boards join by TLS, without any board."""
    del broker
    made = JoinableFog(tmp_path_factory.mktemp("joined"))
    made.init()
    made.start_broker()
    yield made
    made.close()


def examined(fog: Fog, **settings: str) -> tuple[int, dict[str, Any]]:
    """What the gateway's doctor says: exit code, and findings by check."""
    ran = fog.command("doctor", "--json", **settings)
    assert "Traceback" not in ran.stderr
    return ran.returncode, by_check(ran.stdout)


def by_check(said: str) -> dict[str, Any]:
    """The worst finding of each check."""
    levels = ("ok", "warning", "fault")
    found = sorted(json.loads(said), key=lambda one: levels.index(one["level"]))
    return {one["check"]: one for one in found}


def of_device(*arguments: str) -> tuple[int, dict[str, Any]]:
    ran = subprocess.run(
        [sys.executable, "-m", "fogmqtt.cli.device", "doctor", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in ran.stderr
    return ran.returncode, by_check(ran.stdout)


def port_of(fog: Fog) -> int:
    assert isinstance(fog.broker, RealBroker)
    return fog.broker.port


class FarRelay(Relay):
    """Whatever passes it comes so many seconds later."""

    def __init__(self, target: int, delay_s: float) -> None:
        self._delay_s = delay_s
        super().__init__(target)

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        on_its_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def receive() -> None:
            with suppress(OSError):
                while data := source.recv(65_536):
                    on_its_way.put((time.monotonic() + self._delay_s, data))
            on_its_way.put((0.0, b""))

        self._begin(receive)
        while True:
            due, data = on_its_way.get()
            if not data:
                return  # the relay closes both sides
            time.sleep(max(0.0, due - time.monotonic()))
            sink.sendall(data)


def test_a_broker_that_is_far_away_is_named(fog: Fog) -> None:
    far = FarRelay(port_of(fog), 0.044)
    try:
        code, found = of_device("--id", "nour", "--broker", far.url)
    finally:
        far.close()
    assert code == 1
    assert "a ping to the broker takes" in found["round trip"]["sentence"]
    assert found["round trip"]["level"] == "warning"


def test_a_slow_link_is_measured_and_named(fog: Fog) -> None:
    with slow_relay(port_of(fog), 100_000) as slow:
        code, found = of_device("--id", "nour", "--broker", slow.url)
    assert code == 1
    assert found["link"]["level"] == "warning"
    assert "0.1" in found["link"]["sentence"]


@pytest.mark.parametrize("way", [CUT, CUT_LATE])
def test_a_broker_that_ends_whoever_asks_for_its_counters_is_no_fault(fog: Fog, way: str) -> None:
    with strict(port_of(fog), way) as relay:
        code, found = examined(fog, BROKER__URL=relay.url)
    assert code < 2, found
    assert found["broker"]["level"] == "ok"
    assert found["link"]["level"] == "ok"
    assert found["$SYS"]["level"] == "warning"


def test_the_second_of_two_brokers_is_enough(fog: Fog) -> None:
    good = f"mqtt://127.0.0.1:{port_of(fog)}"
    code, found = of_device("--id", "nour", "--broker", "mqtt://127.0.0.1:1", "--broker", good)
    assert code < 2, found
    assert found["broker"]["level"] == "ok"
    assert "after others did not (nothing listens at 127.0.0.1:1" in found["broker"]["sentence"]


def test_an_access_list_without_the_counters_is_named(broker: object, tmp_path: Path) -> None:
    """Mosquitto grants the subscription, and sends nothing."""
    del broker
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite fog/v1/#\n")
    rules.chmod(0o644)
    with private_fog(tmp_path, f"acl_file {rules}") as strict_fog:
        code, found = examined(strict_fog)
    assert code == 1
    assert found["$SYS"]["level"] == "warning"
    assert "add-user.sh" in found["$SYS"]["fix"]


def test_the_roles_of_this_project_may_read_the_counters(
    fog: Fog, broker: object, tmp_path: Path
) -> None:
    del broker
    site = Site.make(tmp_path, USERS, certificates=("mariem",))
    try:
        user = "mariem-run"
        named = {"USERNAME": user, "PASSWORD": site.passwords[user], "URL": site.url}
        code, found = examined(fog, **{f"BROKER__{key}": one for key, one in named.items()})
    finally:
        site.stop()
    assert code < 2, found
    assert found["queue limits"]["level"] == "ok"
    assert found["gateway"]["level"] == "ok"
    assert "not told" in found["gateway"]["sentence"]


def test_messages_that_a_broker_dropped_are_counted(fog: Fog) -> None:
    from tests.integration.faults.test_broker_drops import slow_client

    counter = "$SYS/broker/publish/messages/dropped"
    with fog.probe(counter, client_id="flood") as flood:
        with slow_client(f"mqtt://127.0.0.1:{port_of(fog)}"):
            for _ in range(400):
                flood.publish("flood", b"x")
            while int(flood.message(counter, within=30).payload) == 0:
                pass
        code, found = examined(fog)
    assert code == 1
    assert "the broker has dropped" in found["queue limits"]["sentence"]
    assert "max_queued_messages" in found["queue limits"]["fix"]


@contextmanager
def announced(fog: Fog, name: str, **changes: Any) -> Iterator[None]:
    """A device that says of itself what is planted."""
    report = local_report()
    about = {
        "operators": list(report.operators),
        "fingerprints": report.fingerprints,
        "versions": report.versions,
    }
    info = DeviceInfo(boot="it", sequence=1, uptime_s=1.0, workers=1, **(about | changes))
    with fog.probe(client_id=name) as client:
        for leaf, payload in (("info", encode(info)), ("status", b"online")):
            client.publish(f"fog/v1/devices/{name}/{leaf}", payload, retain=True)
        try:
            yield
        finally:
            for leaf in ("info", "status"):
                client.publish(f"fog/v1/devices/{name}/{leaf}", b"", retain=True)


@pytest.mark.parametrize(
    ("version", "updates", "fix"),
    [
        ("0.0.1", True, "fog-gateway update old"),
        ("0.0.1", False, "on them as the first time"),
        ("99.0", True, "on the gateway, too"),
    ],
)
def test_versions_apart_are_named_with_a_command_that_helps(
    fog: Fog, version: str, updates: bool, fix: str
) -> None:
    versions = local_report().versions | {"fogmqtt": version}
    with announced(fog, "old", versions=versions, updates=updates):
        code, found = examined(fog)
    assert code == 1
    assert f"devices run: old {version}" in found["versions"]["sentence"]
    assert fix in found["versions"]["fix"]


def test_fingerprints_apart_are_named_with_the_operator(fog: Fog) -> None:
    wrong = local_report().fingerprints | {"canny/uint8": "0123456789abcdef"}
    with announced(fog, "other", fingerprints=wrong):
        code, found = examined(fog)
    assert code == 1
    assert "other gets no tiles for canny" in found["fingerprints"]["sentence"]


def test_a_disk_that_is_nearly_full_is_named(fog: Fog, tmp_path: Path) -> None:
    need(os.geteuid() == 0, "a disk of 1 MB", "run it as root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    subprocess.run(mount, check=True)
    try:
        code, found = examined(fog, GATEWAY__SPOOL=str(tmp_path / "spool"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert code == 2
    assert f"the disk of {tmp_path} is nearly full" in found["disk"]["sentence"]


def test_a_fog_that_boards_join_is_told_what_it_lacks_and_then_that_all_is_well(
    joined: JoinableFog,
) -> None:
    alone = by_check(joined.gateway("doctor", "--json", code=1).stdout)
    assert "no gateway is online" in alone["gateway"]["sentence"]
    invite = f"fog-gateway --config {joined.config} invite eya"
    assert invite in alone["devices"]["fix"]
    gateway = joined.serve()
    joined.invite("eya")
    gateway.says("boards can join")
    board = joined.board("eya", "--join", str(joined.folder / "eya.fog"))
    board.says("eya is online")
    # Whether other machines are near is not for this test to say.
    well = by_check(joined.gateway("doctor", "--json", code=1).stdout)
    assert {check for check, one in well.items() if one["level"] != "ok"} <= LONELY
    assert well["gateway"]["sentence"] == "online: mariem"
    assert well["devices"]["sentence"] == "1 online: eya"
    # The broker lets one program of eya in, and the doctor does not take the agent's place.
    asked = joined.try_board("eya", "doctor", "--json", home="eya")
    works = by_check(asked.stdout)
    assert asked.returncode == 0, asked.stdout
    assert "the agent of eya runs here and is connected" in works["broker"]["sentence"]
    assert "Client eya already connected" not in joined.broker_log
    board.kill()
    asked = joined.try_board("eya", "doctor", "--json", home="eya")
    measured = by_check(asked.stdout)
    assert asked.returncode == 0, asked.stdout
    assert measured["link"]["level"] == "ok"
    assert "not told" in measured["gateway"]["sentence"]
    assert "$SYS" not in measured
    assert not asked.stderr
    joined.gateway("revoke", "eya")
    asked = joined.try_board("eya", "doctor", "--json", home="eya")
    revoked = by_check(asked.stdout)
    assert asked.returncode == 2, asked.stdout
    assert "revoked" in revoked["broker"]["sentence"]
    assert "fog-gateway invite --replace eya, and join again" in revoked["broker"]["fix"]
