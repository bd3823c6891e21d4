"""Each thing that can be wrong is named with its fix, and nothing else is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fogmqtt.cli.doctor import show
from fogmqtt.doctor import broker_checks as checks
from fogmqtt.doctor import machine, running_agent
from fogmqtt.doctor.broker_look import BrokerFacts, Seen
from fogmqtt.doctor.finding import Finding, exit_code, fault, ok, warning
from fogmqtt.doctor.network import network
from tests.fog import free_port

TILE = 900_000


def well(**changes: object) -> BrokerFacts:
    """A broker without a fault, but for the changes."""
    facts = BrokerFacts(
        "broker:1883", reached=True, has_counters=True, ping_s=0.001, echo_s=0.002, bytes_per_s=1e7
    )
    facts.devices = {"eya": Seen(True, {"a"}, {"a"}, "1.0")}
    facts.gateways = {"mariem": Seen(True, {"g"}, {"g"}, "1.0", serves=True)}
    for name, value in changes.items():
        setattr(facts, name, value)
    return facts


def all_of(facts: BrokerFacts) -> list[Finding]:
    found = [
        *checks.broker(facts),
        checks.message_limit(facts, TILE),
        checks.counters(facts),
        checks.taken_over(facts, "use another user"),
        checks.delay(facts),
        checks.link_rate(facts),
        checks.devices(facts, "start one: fog-device --id eya"),
        checks.gateways(facts, is_told=True),
        checks.several_gateways(facts, "mariem", has_group=False),
        *checks.device_versions(facts, "1.0"),
        checks.gateway_versions(facts, "1.0", "restart it"),
        *checks.twins(facts),
        checks.shared(facts),
        *checks.clocks(facts),
    ]
    return [one for one in found if one is not None]


def test_a_broker_without_a_fault_has_none() -> None:
    assert {one.level for one in all_of(well())} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "check", "level", "words"),
    [
        (
            {"reached": False, "refusals": {"x": "nothing listens at x; start it"}},
            "broker",
            "fault",
            "nothing listens",
        ),
        ({"unsteady": "it broke"}, "broker", "fault", "again and again: it broke"),
        (
            {"max_packet_bytes": 100_000},
            "message limit",
            "fault",
            "wire.max_message_bytes to 95904",
        ),
        ({"has_counters": False}, "$SYS", "warning", "topic read $SYS"),
        ({"dropped": 17}, "queue limits", "warning", "max_queued_messages"),
        ({"taken_over": True}, "user", "warning", "use another user"),
        ({"ping_s": 0.088, "echo_s": None}, "round trip", "warning", "88 ms"),
        ({"echo_s": 0.043}, "round trip", "warning", "set_tcp_nodelay true"),
        ({"bytes_per_s": 30_000.0}, "link", "warning", "0.03 MB/s"),
        ({"devices": {}}, "devices", "warning", "fog-device --id eya"),
        ({"devices": {"eya": Seen()}}, "devices", "warning", "remembers eya"),
        ({"gateways": {}}, "gateway", "warning", "start fog-gateway"),
        (
            {"devices": {"eya": Seen(True, {"a", "b"}, {"a", "b"}, "1.0")}},
            "two of one id",
            "fault",
            "another --id",
        ),
        (
            {"gateways": {"mariem": Seen(True, {"a", "b"}, {"a", "b"}, "1.0")}},
            "two of one id",
            "fault",
            "another gateway.id",
        ),
        (
            {"devices": {"eya": Seen(True, {"a"}, {"a"}, "0.9")}},
            "versions",
            "warning",
            "as the first time",
        ),
        (
            {"devices": {"eya": Seen(True, {"a"}, {"a"}, "0.9", updates=True)}},
            "versions",
            "warning",
            "fog-gateway update eya",
        ),
        (
            {"devices": {"eya": Seen(True, {"a"}, {"a"}, "1.1")}},
            "versions",
            "warning",
            "on the gateway, too",
        ),
        (
            {"gateways": {"mariem": Seen(True, {"g"}, {"g"}, "0.9", serves=True)}},
            "versions",
            "warning",
            "gateways run: mariem 0.9",
        ),
        ({"has_shared": False}, "shared subscriptions", "fault", "leave gateway.group empty"),
        (
            {"devices": {"eya": Seen(True, {"a"}, {"a"}, "1.0", clock_ahead_s=-7200.0)}},
            "clocks",
            "warning",
            "the clock of the device eya is 2 hours behind this one",
        ),
        (
            {"gateways": {"mariem": Seen(True, {"g"}, {"g"}, "1.0", clock_ahead_s=45.0)}},
            "clocks",
            "warning",
            "the clock of the gateway mariem is 45 s ahead of this one",
        ),
        (
            {"gateways": {"oscar": Seen(True, {"a"}, {"a"}, "1.0", serves=True)}},
            "several gateways",
            "warning",
            "gateway.group",
        ),
    ],
)
def test_what_is_wrong_with_a_broker_is_named_with_its_fix(
    changes: dict[str, object], check: str, level: str, words: str
) -> None:
    (found,) = [one for one in all_of(well(**changes)) if one.level != "ok"]
    assert (found.check, found.level) == (check, level)
    assert words in f"{found.sentence} {found.fix}"
    assert found.fix


@pytest.mark.parametrize(
    ("addresses", "hears", "level", "words"),
    [
        ((), None, "fault", "no address but that of loopback"),
        (("172.17.0.2",), True, "warning", "behind the NAT of Docker (172.17.0.2)"),
        (("10.0.2.15",), None, "warning", "behind the NAT of a virtual machine"),
        (("192.168.1.10",), False, "warning", "no machine answers by mDNS: a guest network"),
        (("192.168.1.10",), True, "ok", "this machine has 192.168.1.10"),
        (("172.17.0.1", "192.168.1.10"), None, "ok", "192.168.1.10"),
    ],
)
def test_nat_and_networks_without_mdns_are_named(
    addresses: tuple[str, ...], hears: bool | None, level: str, words: str
) -> None:
    found = network(addresses, hears_mdns=hears)
    assert (found.check, found.level) == ("network", level)
    assert words in found.sentence
    assert bool(found.fix) == (level != "ok")


def test_of_several_brokers_one_is_enough() -> None:
    (found,) = checks.broker(well(refusals={"x": "no such host: 'x'; check broker.url"}))
    assert found.level == "ok"
    assert found.sentence.endswith("lets this program in, after others did not (no such host: 'x')")


@pytest.mark.parametrize(
    ("refusal", "fix"),
    [
        ("revoked", "join again"),
        ("ca.crt does not confirm x; set broker.ca to the ca.crt of that broker", "join again"),
        ("nothing listens at x; start the broker there", "start the broker there; join again"),
    ],
)
def test_a_board_that_has_joined_hears_of_no_settings_that_it_has_not(
    refusal: str, fix: str
) -> None:
    refusals = {"gateway.local": "no such host: 'gateway.local'; check broker.url", "x": refusal}
    (found,) = checks.broker(well(reached=False, refusals=refusals), "join again")
    assert found.fix == fix


def test_a_user_who_is_told_of_no_gateway_hears_no_warning() -> None:
    assert checks.gateways(well(gateways={}), is_told=False).level == "ok"


def test_a_device_that_was_restarted_is_no_twin() -> None:
    restarted = Seen(True, {"kept by the broker", "b"}, {"b"}, "1.0")
    assert not list(checks.twins(well(devices={"eya": restarted})))


def test_fingerprints_that_differ_are_named_with_the_operator() -> None:
    differs = {"eya": {"canny/uint8": "rounds differently (OpenCV 4.8)", "canny/uint16": "x"}}
    (found,) = checks.fingerprints(differs)
    assert "eya gets no tiles for canny: it rounds differently (OpenCV 4.8)" in found.sentence
    assert not list(checks.fingerprints({"eya": {}}))


@pytest.mark.parametrize(
    ("free", "level"), [(100_000_000, "fault"), (2_000_000_000, "warning"), (20_000_000_000, "ok")]
)
def test_a_disk_that_is_nearly_full_is_named(free: int, level: str) -> None:
    assert machine.free_room("/spool", free, 32_000_000_000).level == level


def test_disks_are_looked_at_once_and_folders_that_are_missing_by_their_parent(
    tmp_path: Path,
) -> None:
    found = list(machine.disk([str(tmp_path), str(tmp_path / "x" / "y"), ""]))
    assert [one.check for one in found] == ["disk"]


def test_a_clock_before_the_installation_is_wrong() -> None:
    found = machine.clock(0.0)
    assert found.level == "fault"
    assert "1970-01-01" in found.sentence
    assert "timedatectl" in found.fix
    assert machine.clock().level == "ok"


@pytest.mark.parametrize("folder", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"])
@pytest.mark.parametrize(
    ("word", "levels", "words"),
    [
        ("0x50005", ["fault", "warning", "warning", "warning"], "5 V"),
        ("50000", ["warning", "warning"], "since the start"),
        ("0x8", ["warning"], "temperature limit"),
        ("0", ["ok"], "neither"),
        ("", [], ""),
        ("none", [], ""),
    ],
)
def test_low_voltage_and_throttling_of_a_pi_are_named(
    tmp_path: Path, folder: str, word: str, levels: list[str], words: str
) -> None:
    firmware = tmp_path / folder
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text(f"{word}\n")

    def read(path: Path) -> str:
        return machine.read_text(path) if tmp_path in path.parents else "45000"

    found = list(machine.power(read, tmp_path))
    assert [one.level for one in found] == levels
    assert words in " ".join(f"{one.sentence} {one.fix}" for one in found)


def test_a_hot_processor_is_named(tmp_path: Path) -> None:
    (found,) = machine.power(lambda _: "84500", tmp_path)
    assert "84 °C" in found.sentence or "85 °C" in found.sentence


TABLE = """\
  sl  local_address rem_address   st
   0: 0100007F:075B 00000000:0000 0A 00000000:00000000
   1: 00000000:0016 00000000:0000 0A 00000000:00000000
   2: 0100007F:0016 0100007F:A0B0 01 00000000:00000000
"""
TABLE6 = """\
  sl  local_address rem_address   st
   0: 00000000000000000000000001000000:075B 00000000000000000000000000000000:0000 0A 0
   1: 00000000000000000000000000000000:22B3 00000000000000000000000000000000:0000 0A 0
"""


@pytest.mark.parametrize(
    ("port", "where"), [(1883, "loopback"), (22, "all"), (8883, "all"), (80, "nowhere")]
)
def test_where_a_broker_listens_is_read_from_the_kernel(port: int, where: str) -> None:
    assert machine.listener(port, [TABLE, TABLE6]) == where


def test_a_broker_that_listens_on_loopback_only_is_named() -> None:
    found = machine.reach(1883, [TABLE])
    assert found is not None
    assert "open.conf" in found.fix
    assert machine.reach(22, [TABLE]) is None


def test_a_broker_that_other_machines_reach_by_tls_is_none_of_these() -> None:
    assert machine.reach(1883, [TABLE, TABLE6]) is None


def test_a_port_that_is_taken_is_named() -> None:
    import socket

    number = free_port()
    free = machine.page("127.0.0.1", number, "mariem")
    assert free.level == "ok"
    with socket.create_server(("127.0.0.1", number)):
        taken = machine.port("dashboard.listen", "127.0.0.1", number)
    assert taken.level == "warning"
    assert "another port" in taken.fix


@pytest.mark.parametrize(
    ("gateway", "level"), [("mariem", "ok"), ("oscar", "warning"), ("mari", "warning")]
)
def test_the_page_of_this_gateway_may_have_its_port(gateway: str, level: str) -> None:
    with http_server(Page) as number:
        assert machine.page("127.0.0.1", number, gateway).level == level


def test_another_program_at_the_port_of_the_page_is_named() -> None:
    with http_server(BaseHTTPRequestHandler) as number:
        assert machine.page("127.0.0.1", number, "mariem").level == "warning"


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"status":"ok","sentence":"The dashboard of mariem runs."}'
        self.send_response(200)
        self.send_header("fogmqtt-version", "1.0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("arguments", "is_agent"),
    [
        ("python /opt/fogmqtt/bin/fog-device --id eya", True),
        ("python -m fogmqtt.cli.device --id=eya --versions /var/lib/fogmqtt", True),
        ("python /opt/fogmqtt/bin/fog-device --config device.yaml", True),
        ("python /opt/fogmqtt/bin/fog-device --id manar", False),
        ("python /opt/fogmqtt/bin/fog-device doctor --id eya", False),
        ("vi fog-device.md --id eya", False),
    ],
)
def test_a_running_agent_is_known_by_its_command_and_its_connection(
    tmp_path: Path, arguments: str, is_agent: bool
) -> None:
    to_broker = "   1: 0200A8C0:C350 0100A8C0:22B3 01 00000000:00000000\n"
    for process in ("71", "self"):
        (tmp_path / process / "net").mkdir(parents=True)
        (tmp_path / process / "net" / "tcp").write_text(TABLE + to_broker)
    (tmp_path / "71" / "cmdline").write_text(arguments.replace(" ", "\0") + "\0")
    assert running_agent.has_broker("eya", {8883}, tmp_path) == is_agent
    assert not running_agent.has_broker("eya", {1884}, tmp_path)
    # The same process in another network, such as in a container.
    (tmp_path / "self" / "net" / "tcp").write_text(TABLE)
    assert not running_agent.has_broker("eya", {8883}, tmp_path)


def test_the_exit_code_is_that_of_the_worst_finding(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [ok("a", "fine"), warning("b", "hm\x1b[2J", "do this"), fault("c", "bad", "do that")]
    assert [exit_code(findings[:count]) for count in range(4)] == [0, 0, 1, 2]
    assert show(findings, as_json=False) == 2
    told = capsys.readouterr().out
    assert "FAULT    c: bad" in told
    assert "→ do that" in told
    assert "\x1b" not in told
    assert show(findings[:1], as_json=True) == 0
    assert '"level": "ok"' in capsys.readouterr().out
    assert os.linesep in told
