"""The first hour, with the real programs: init, invite, join, tiles, revoke, and mDNS.

All announcements on loopback are in this file, since every test hears them.
"""

from __future__ import annotations

import json
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import cv2
import msgspec
import pytest
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from fogmqtt.cli import leftovers, moved_gateway
from fogmqtt.cli.find_gateway import find_moved
from fogmqtt.cli.leftovers import LeftoverWatch, clear_leftovers
from fogmqtt.cli.moved_gateway import GatewayWatch
from fogmqtt.config import load_gateway
from fogmqtt.joining.authority import Authority
from fogmqtt.joining.board import join
from fogmqtt.joining.bundle import utc_now
from fogmqtt.joining.identity import load_identity, save_changed
from fogmqtt.joining.mdns import announce, find_gateways
from fogmqtt.joining.notice import GatewayAnnouncer, GatewayNotice
from fogmqtt.setup.link import make_link
from fogmqtt.transport.base import Connected, Published, Refused
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.topics import Topics
from tests.fog import free_port, wait_for
from tests.joinable import JoinableFog
from tests.netns import network
from tests.processes import edges_of, photo, read, same

PIN = "A" * 26
LOOPBACK = ("127.0.0.1",)


def notice(gateway: str, *addresses: str, pin: str = "") -> GatewayNotice:
    return GatewayNotice(
        gateway=gateway,
        prefix="fog/v1",
        addresses=addresses or LOOPBACK,
        port=free_port(),
        tls=bool(pin),
        pin=pin,
        join_port=8884 if pin else 0,
    )


@contextmanager
def announced(*notices: GatewayNotice) -> Iterator[None]:
    announcers = []
    for one in notices:
        announcers.append(GatewayAnnouncer(lambda one=one: one, announce))
        announcers[-1].start()
    try:
        yield
    finally:
        for announcer in announcers:
            announcer.close()


def found(*, pin: str = "", tries: int = 5) -> list[GatewayNotice]:
    """What a board finds; on a busy machine an announcement may come late."""
    for _ in range(tries):
        if seen := find_gateways(pin=pin, interfaces=LOOPBACK):
            return seen
    return []


@pytest.fixture(scope="module")
def fog(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JoinableFog]:
    """A gateway that serves, announced on loopback, and the broker that `init` configured."""
    del broker  # skips or fails where Mosquitto is missing
    made = JoinableFog(tmp_path_factory.mktemp("joinable"))
    made.init()
    said = made.gateway("invite", "early").stderr
    assert "cannot join yet: no gateway serves" in said
    assert "The broker does not run yet" in said
    made.start_broker()
    made.serve(FOGMQTT_JOINING__ANNOUNCE="always")
    yield made
    made.close()


def test_what_init_wrote_is_for_its_user_only(fog: JoinableFog) -> None:
    paths = [fog.site.folder, *fog.site.folder.rglob("*")]
    open_to_others = [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]
    ours = ("inbox", "outbox", "spool")  # of the gateway, which has its own rules
    assert [one for one in open_to_others if not set(one.parts) & set(ours)] == []


def test_init_overwrites_nothing_unasked(fog: JoinableFog) -> None:
    before = fog.config.read_text()
    done = fog.gateway("init", "--address", "127.0.0.1", configured=False, code=1)
    assert "exist and would be written anew" in done.stderr
    assert "give --yes" in done.stderr
    assert fog.config.read_text() == before


def test_init_keeps_what_was_chosen_before(broker: object, tmp_path: Path) -> None:
    del broker
    made = JoinableFog(tmp_path)
    made.init("--id", "lab", "--prefix", "lab/v1")
    before = made.site.settings
    said = made.gateway("init", "--yes", configured=False).stdout
    assert made.site.settings == before
    assert (before.gateway, before.prefix, before.addresses) == ("lab", "lab/v1", LOOPBACK)
    assert "fog-gateway --config fog/config.yaml invite eya" in said
    made.gateway("init", "--yes", "--address", "all", "--id", "lab2", configured=False)
    changed = msgspec.structs.replace(before, gateway="lab2", addresses=())
    assert made.site.settings == changed
    said = made.gateway("init", "my fog", "--address", "127.0.0.1", configured=False).stdout
    assert "--config 'my fog/config.yaml' invite eya" in said


def test_a_board_joins_by_a_line_alone_and_its_tiles_are_exact(fog: JoinableFog) -> None:
    code = str(fog.invite("eya").code)
    board = fog.board("eya", "--join", code)
    board.says("eya is online at mqtts://127.0.0.1")
    image = fog.folder / "photo.png"
    cv2.imwrite(str(image), photo())
    done = fog.gateway(
        "run", str(image), "-o", str(fog.folder / "edges.png"), "--report", "report.json"
    )
    assert same(read(fog.folder / "edges.png"), edges_of(image)), done.stderr
    # The same command again, as a service does after a power cut: the identity counts.
    board.kill()
    again = fog.board("eya", "--join", code)
    again.says("eya is online")
    assert "joining" not in again.said
    # The same line on another board.
    thief = fog.try_board("eya", "--join", code, home="thief")
    assert thief.returncode == 2
    assert "this invitation was used" in thief.stderr
    assert "from 127.0.0.1" in thief.stderr
    # Out at once: the gateway knows, and the broker lets it in no more.
    gateway = fog.programs[0]
    fog.gateway("revoke", "eya")
    gateway.says("eya is lost")
    again.says("mariem has revoked this board, or another one has taken its name")
    assert again.process.wait(30) == 2
    assert fog.programs[0].running
    listed = json.loads(fog.gateway("invites", "--json").stdout)
    assert [one["state"] for one in listed if one["board"] == "eya"] == ["used"]


def test_a_board_that_cannot_join_says_why_and_ends(fog: JoinableFog) -> None:
    fog.invite("oumayma")
    lina, _ = join(fog.invite("lina", "--offline"), (), fog.identity_of("lina"))
    other = Authority.make("mariem", utc_now())[0]
    lina.ca(fog.identity_of("lina")).write_text(other.pem)
    elsewhere = "FOG1:EVA:" + "A" * 26 + ":" + "B" * 26
    tries = (
        (
            fog.board("manar"),
            3,
            "mariem at 127.0.0.1: this gateway lets boards in by invitation; on it run: fog",
        ),
        (
            fog.board("eva", "--join", elsewhere),
            3,
            "the gateway of this invitation is not announced on this network",
        ),
        (fog.board("lina"), 3, "This board has joined mariem. If that gateway was made anew"),
        (
            fog.board("nour", "--join", str(fog.folder / "oumayma.fog")),
            2,
            "this invitation is for oumayma, and this board is nour",
        ),
    )
    for board, code, said in tries:
        assert board.ended() == code
        assert said in board.said
        assert len(board.said.strip().splitlines()) <= 2


def test_a_board_without_an_invitation_asks_and_is_let_in_by_its_code(fog: JoinableFog) -> None:
    listing = fog.start(
        "accept", ["-m", "fogmqtt.cli.gateway", "--config", str(fog.config), "accept"], {}
    )
    listing.says("boards may ask to join until")
    board = fog.board("manar", "--gateway", f"127.0.0.1:{fog.site.settings.join_port}")
    board.says("on the gateway run: fog-gateway accept manar")
    (code,) = re.findall(r"fog-gateway accept manar (\d{3}-\d{3})", board.said)
    listing.says(f"fog-gateway accept manar {code}")
    wrong = "000-000" if code != "000-000" else "111-111"
    said = fog.gateway("accept", "manar", wrong, code=2).stderr
    assert "that may not be your board" in said
    assert "manar is let in" in fog.gateway("accept", "manar", code).stdout
    board.says("manar is online")
    listing.stop()
    assert "no board may ask to join" in listing.said
    board.stop()
    fog.gateway("revoke", "manar")


def test_a_board_finds_the_gateway_of_its_invitation_among_others() -> None:
    ours, other = notice("mariem", pin=PIN), notice("other", pin="B" * 26)
    with announced(ours, other):
        assert found(pin=PIN) == [ours]


def test_a_board_that_runs_finds_its_gateway_at_a_new_address(
    fog: JoinableFog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moved_gateway, "LOOK_S", 0.0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder, dead = tmp_path / "fogmqtt", "192.0.2.1"
    now, _ = join(fog.invite("moved"), (), folder)
    old = msgspec.structs.replace(now, brokers=(f"mqtts://{dead}:1",), join=(f"https://{dead}:1",))
    save_changed(old, folder)
    watch, stopped, heard = GatewayWatch("moved"), threading.Event(), list[object]()
    watch.stop = stopped.set
    refused = Refused("192.0.2.1 does not answer")
    for _ in range(5):  # on a busy machine an announcement may come late
        watch.observing(heard.append)(refused)
        if stopped.wait(15):
            break
    assert watch.has_moved
    assert heard[0] == refused
    found = load_identity("moved", (folder,))
    assert found is not None
    assert (found[0].brokers, found[0].join) == (now.brokers + old.brokers, now.join + old.join)
    assert find_moved(*found) is None
    fog.gateway("revoke", "moved")


def test_what_a_board_leaves_retained_for_gateways_that_never_were_is_cleared(
    fog: JoinableFog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    identity, _ = join(fog.invite("retainer"), (), tmp_path)
    topics, config = Topics("fog/v1"), load_gateway(fog.config, {})
    pem = str(identity.pem(tmp_path))
    theirs = replace(
        config.broker,
        url=identity.brokers,
        username=None,
        password=None,
        ca=str(identity.ca(tmp_path)),
        cert=pem,
        key=pem,
    )
    events: SimpleQueue[object] = SimpleQueue()
    board = PahoTransport(make_link(theirs, "retainer"), events.put)
    board.start()
    assert isinstance(events.get(timeout=60), Connected)
    left = [topics.results(f"made-up-{number}", "retainer") for number in range(20)]

    def leave() -> None:
        for topic in left:
            board.publish(topic, b"x" * 10_000, retain=True, token=topic)
        confirmed = set[object]()
        while confirmed != set(left):
            match events.get(timeout=60):
                case Published(token=token, refusal=""):
                    confirmed.add(token)

    leave()
    assert clear_leftovers(config.broker, topics, "eya") == frozenset()
    assert clear_leftovers(config.broker, topics) == {"retainer"}
    assert clear_leftovers(config.broker, topics) == frozenset()
    # By the gateway, and by revoking the board.
    leave()
    monkeypatch.setattr(leftovers, "EVERY_S", 0.1)
    watch = LeftoverWatch(config.broker, "fog/v1")
    watch.start()
    said = "retainer left retained messages on topics of results"
    wait_for(lambda: said in caplog.text, what="the warning", within=60)
    watch.close()
    assert clear_leftovers(config.broker, topics) == frozenset()
    leave()
    board.close()
    fog.gateway("revoke", "retainer")
    assert clear_leftovers(config.broker, topics) == frozenset()


def test_two_gateways_of_one_name_are_two() -> None:
    one, two = notice("mariem", pin=PIN), notice("mariem", pin="B" * 26)
    with announced(one, two):
        assert found(pin=PIN) == [one]
        assert found(pin="B" * 26) == [two]


def test_several_gateways_are_listed_with_the_command_for_each(fog: JoinableFog) -> None:
    one = notice("other")
    with announced(one):
        done = fog.try_board("safa")
        for _ in range(4):
            if done.returncode == 2:
                break
            done = fog.try_board("safa")
    assert done.returncode == 2, done.stderr
    assert "2 gateways are on this network; choose one:" in done.stderr
    assert f"  fog-device --id safa --broker mqtt://127.0.0.1:{one.port}    (other)" in done.stderr
    assert "  fog-gateway invite safa    (on mariem, 127.0.0.1)" in done.stderr


def test_a_board_finds_a_gateway_on_another_machine_and_not_beyond_the_switch() -> None:
    with network("gateway", "board", "far") as lan:
        lan.unplug("far")
        ours = notice("mariem", lan.address("gateway"), pin=PIN)
        seen: dict[str, list[GatewayNotice]] = {}

        def look(host: str) -> None:
            with lan.inside(host):
                for _ in range(5):
                    seen[host] = find_gateways(pin=PIN, interfaces=(lan.address(host),))
                    if seen[host] or host == "far":
                        return

        with lan.inside("gateway"):
            announcer = GatewayAnnouncer(lambda: ours, announce)
            announcer.start()
        try:
            looking = [threading.Thread(target=look, args=(host,)) for host in ("board", "far")]
            for thread in looking:
                thread.start()
            for thread in looking:
                thread.join()
        finally:
            announcer.close()
        assert seen == {"board": [ours], "far": []}


def test_an_announcement_that_is_none_of_ours_is_passed_over() -> None:
    strange = [
        {"v": "2", "id": "mariem"},
        {"v": "1", "id": "../../etc"},
        {"v": "1", "id": "\x1b[2J"},
        {},
    ]
    zeroconf = Zeroconf(interfaces=list(LOOPBACK), ip_version=IPVersion.V4Only)
    try:
        for number, properties in enumerate(strange):
            zeroconf.register_service(
                ServiceInfo(
                    "_fogmqtt._tcp.local.",
                    f"strange{number}._fogmqtt._tcp.local.",
                    parsed_addresses=list(LOOPBACK),
                    port=1883,
                    properties=properties,
                    server=f"strange{number}.local.",
                ),
                cooperating_responders=True,  # no search for others of this name
            )
        ours = notice("mariem")
        with announced(ours):
            seen = found()
        assert {one.gateway for one in seen} == {"mariem"}
    finally:
        zeroconf.close()
