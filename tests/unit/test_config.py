"""Where settings come from, and the error of a wrong one."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from fogmqtt.cli.gateway import main
from fogmqtt.config import (
    DeviceConfig,
    GatewayConfig,
    RecordSettings,
    StreamSettings,
    load_device,
    load_gateway,
)
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.errors import ConfigError
from fogmqtt.setup.link import make_link

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path):
    def write(text, name="fog.yaml"):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write


def refusal(load, path, environ=None):
    with pytest.raises(ConfigError) as refused:
        load(path, environ or {})
    return str(refused.value)


# Where settings come from


def test_without_a_file_the_defaults_apply():
    assert load_gateway(None, {}) == GatewayConfig()
    assert load_device(None, {}) == DeviceConfig()


def test_an_empty_file_changes_only_the_folder_of_paths(write):
    config = load_gateway(write(""), {})
    plain = GatewayConfig()
    assert dataclasses.replace(config, gateway=plain.gateway, models=plain.models) == plain
    assert Path(config.models).is_absolute()


def test_a_section_with_all_keys_commented_out_is_empty(write):
    assert load_gateway(write("broker:\n  # url: x\n"), {}).broker == GatewayConfig().broker


def test_the_file_overrides_defaults_and_the_environment_overrides_the_file(write):
    path = write("wire: {qos: 2, encoding: base64}")
    config = load_gateway(path, {"FOGMQTT_WIRE__QOS": "0"})
    assert (config.wire.qos, config.wire.encoding) == (0, "base64")


def test_a_file_may_begin_with_a_byte_order_mark(write):
    assert load_gateway(write("\ufeffpost: invert"), {}).post == "invert"


@pytest.mark.parametrize("text", ["3.1.1", "'3.1.1'"])
def test_the_older_protocol_is_a_text(write, text):
    assert load_gateway(write(f"broker: {{protocol: {text}}}"), {}).broker.protocol == "3.1.1"


@pytest.mark.parametrize("text", ["5", "'5'"])
def test_the_newer_protocol_is_a_number_quoted_or_not(write, text):
    assert load_gateway(write(f"broker: {{protocol: {text}}}"), {}).broker.protocol == 5


def test_pipelines_of_file_and_environment_are_added_to_the_default_one(write):
    path = write("pipelines: {soft: gaussian ksize=5}")
    config = load_gateway(path, {"FOGMQTT_PIPELINES__DARK": "invert"})
    assert set(config.pipelines) == {"edges", "soft", "dark"}


def test_a_pipeline_may_have_a_priority(write):
    path = write("pipelines: {camera: invert, scan: gray}\npriorities: {camera: 2}")
    config = load_gateway(path, {"FOGMQTT_PRIORITIES__SCAN": "-1"})
    assert config.priorities == {"camera": 2, "scan": -1}


@pytest.mark.parametrize("wrong", ["5", "-5", "0.5", "high", "true", "''", "[1]"])
def test_a_priority_is_a_whole_number_from_minus_4_to_4(write, wrong):
    message = refusal(load_gateway, write(f"priorities: {{edges: {wrong}}}"))
    assert "fog.yaml: priorities.edges: expected a whole number from -4 up to 4" in message


def test_the_error_of_a_priority_without_pipeline_suggests_the_nearest(write):
    path = write("pipelines: {camera: invert}\npriorities: {camra: 2}")
    message = refusal(load_gateway, path)
    assert message.endswith(
        "priorities.camra: no pipeline 'camra' is configured; did you mean camera?"
    )
    assert "there are: edges" in refusal(load_gateway, write("priorities: {xyz: 0}"))


def test_the_default_pipeline_can_be_replaced(write):
    config = load_gateway(write("pipelines: {edges: gray | canny low=1 high=2}"), {})
    assert config.pipelines == {"edges": "gray | canny low=1 high=2"}


def test_the_scheduler_is_configured_like_everything_else(write):
    policy = load_gateway(write("scheduler: {max_failures: 2, hedging: false}"), {}).policy()
    assert (policy.max_failures, policy.max_expiries, policy.hedging) == (2, 4, False)


def test_the_shipped_numbers_are_the_policys_own():
    assert GatewayConfig().policy() == Policy()


def test_a_removed_key_says_what_to_do(write):
    removed = "scheduler.slack was removed: fogmqtt chooses it itself; delete the line"
    assert removed in refusal(load_gateway, write("scheduler: {slack: 0.1}"))
    with pytest.raises(ConfigError, match=r"_SLACK was removed: .*; unset the variable"):
        load_gateway(None, {"FOGMQTT_SCHEDULER__SLACK": "0.1"})


def test_a_removed_key_ends_the_program_with_exit_code_2(write, capsys):
    assert main(["--config", str(write("scheduler: {slack: 0.1}")), "devices"]) == 2
    assert "scheduler.slack was removed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("mqtt://a", ("mqtt://a",)),
        ("'mqtt://a, mqtts://b:1'", ("mqtt://a", "mqtts://b:1")),
        ("[mqtt://a, mqtts://b:1]", ("mqtt://a", "mqtts://b:1")),
    ],
)
def test_several_brokers_are_a_list_or_text_with_commas(write, text, urls):
    assert load_gateway(write(f"broker: {{url: {text}}}"), {}).broker.urls == urls
    link = make_link(load_device(write(f"broker: {{url: {text}}}"), {}).broker, "eya")
    assert (link.url, *link.others) == urls
    assert [one.url for one in link.each()] == list(urls)


@pytest.mark.parametrize("text", ["mqtt://a,mqtts://b:1", "[mqtt://a, mqtts://b:1]"])
def test_several_brokers_may_come_from_the_environment(text):
    config = load_device(None, {"FOGMQTT_BROKER__URL": text})
    assert config.broker.urls == ("mqtt://a", "mqtts://b:1")


@pytest.mark.parametrize("text", ["[]", "''", "[mqtt://a, b]", "'mqtt://a,'"])
def test_each_broker_has_a_url(write, text):
    settings = load_gateway(write(f"broker: {{url: {text}}}"), {}).broker
    with pytest.raises(ConfigError, match=r"^broker\.url: "):
        make_link(settings, "eya")


def test_a_device_has_an_id_and_workers(write):
    config = load_device(write("device: {id: eya, workers: 3}"), {})
    assert (config.device.id, config.device.workers) == ("eya", 3)


# The environment


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("FOGMQTT_BROKER__URL", "mqtt://eya:1884", "broker", "url", "mqtt://eya:1884"),
        ("FOGMQTT_BROKER__USERNAME", "007", "broker", "username", "007"),
        ("FOGMQTT_BROKER__PASSWORD", "true", "broker", "password", "true"),
        ("FOGMQTT_BROKER__KEEPALIVE_S", "90", "broker", "keepalive_s", 90.0),
        ("FOGMQTT_BROKER__PROTOCOL", "5", "broker", "protocol", 5),
        ("FOGMQTT_WIRE__QOS", "2", "wire", "qos", 2),
        ("FOGMQTT_WIRE__MAX_MESSAGE_BYTES", "500_000", "wire", "max_message_bytes", 500_000),
        ("FOGMQTT_GATEWAY__INBOX", "", "gateway", "inbox", ""),
    ],
)
def test_a_variable_is_converted_to_the_type_of_its_key(variable, text, section, key, value):
    config = load_gateway(None, {variable: text})
    assert getattr(getattr(config, section), key) == value


def test_a_key_without_section_has_a_variable():
    assert load_gateway(None, {"FOGMQTT_TILES": "grid 3x1"}).tiles == "grid 3x1"


@pytest.mark.parametrize("text", ["auto", "4"])
def test_workers_are_auto_or_a_count(text):
    config = load_device(None, {"FOGMQTT_DEVICE__WORKERS": text})
    assert str(config.device.workers) == text


def test_variables_of_other_programs_are_ignored():
    assert load_gateway(None, {"PATH": "/bin", "FOGGY": "1"}) == GatewayConfig()


def test_both_programs_may_share_one_environment():
    environ = {"FOGMQTT_DEVICE__ID": "eya", "FOGMQTT_GATEWAY__ID": "mariem"}
    assert load_gateway(None, environ).gateway.id == "mariem"
    assert load_device(None, environ).device.id == "eya"


@pytest.mark.parametrize("load", [load_gateway, load_device])
def test_a_variable_of_another_versions_section_is_ignored_and_named(load, caplog):
    assert load(None, {"FOGMQTT_HOLOGRAM__LISTEN": "127.0.0.1:0"}) == load(None, {})
    (record,) = caplog.records
    assert "FOGMQTT_HOLOGRAM__LISTEN is ignored" in record.getMessage()


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("FOGMQTT_BROKR__URL", "did you mean FOGMQTT_BROKER__URL?"),
        ("FOGMQTT_BROKER__URLL", "did you mean FOGMQTT_BROKER__URL?"),
        ("FOGMQTT_BROKER_URL", "did you mean FOGMQTT_BROKER__URL?"),
        ("FOGMQTT_SCHEDULER__STARVE_S", "set FOGMQTT_GATEWAY__LOCAL_AFTER, which decides it"),
        ("FOGMQTT_QQQQQ", "name it like FOGMQTT_BROKER__URL, which is broker.url"),
    ],
)
@pytest.mark.parametrize("load", [load_gateway, load_device])
def test_the_error_of_an_unknown_variable_suggests_the_nearest(load, variable, hint):
    assert refusal(load, None, {variable: "1"}) == f"{variable}: no such setting; {hint}"


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("FOGMQTT_WIRE__QOS", "3", "expected 0, 1 or 2, got '3' (str)"),
        ("FOGMQTT_WIRE__QOS", "[", "expected 0, 1 or 2, got '[' (str)"),
        ("FOGMQTT_BROKER__KEEPALIVE_S", "nan", "expected a number from 1 up to 65535, got 'nan'"),
        ("FOGMQTT_LIMITS__MAX_JOBS", "", "expected a whole number from 1, got ''"),
    ],
)
def test_the_error_of_a_mistyped_variable_names_the_expected_type(variable, text, expected):
    assert refusal(load_gateway, None, {variable: text}).startswith(f"{variable}: {expected}")


# Paths and secrets


def test_paths_of_a_file_are_relative_to_its_folder(write, tmp_path):
    config = load_gateway(write("gateway: {inbox: in, spool: /var/spool/fog}"), {})
    assert config.gateway.inbox == str(tmp_path / "in")
    assert config.gateway.outbox == str(tmp_path / "outbox")
    assert config.gateway.spool == "/var/spool/fog"


def test_paths_of_the_environment_are_relative_to_the_working_directory(write):
    config = load_gateway(write(""), {"FOGMQTT_GATEWAY__INBOX": "in"})
    assert config.gateway.inbox == "in"


def test_an_empty_path_disables_the_folder(write):
    assert load_gateway(write("gateway: {inbox: ''}"), {}).gateway.inbox == ""


def test_a_password_file_is_read_without_its_last_line_break(write, tmp_path):
    write("se cret \n", "secret")
    config = load_device(write("broker: {password_file: secret}"), {})
    assert config.broker.password == "se cret "
    assert config.broker.password_file == str(tmp_path / "secret")


def test_a_password_of_the_environment_replaces_the_files_password_file(write):
    path = write("broker: {password_file: nowhere}")
    assert load_device(path, {"FOGMQTT_BROKER__PASSWORD": "x"}).broker.password == "x"


@pytest.mark.parametrize(
    "text",
    [
        "broker: hunter2",
        "broker: [hunter2]",
        "broker: {password: [hunter2]}",
        "broker: {password_file: hunter2}",
        "broker: {url: hunter2}",
        "broker: {url: 'mqtt://me:hunter2@host'}",
        "gateway: {group: hunter2}",
    ],
)
def test_a_secret_in_the_wrong_line_is_not_shown(write, text):
    with pytest.raises(ConfigError) as refused:
        make_link(load_gateway(write(text), {}).broker, "me")
    assert "hunter2" not in str(refused.value)


def test_the_error_of_a_missing_password_file_names_it(write, tmp_path):
    path = write("broker: {password_file: nowhere.txt}")
    message = refusal(load_device, path)
    assert message == (
        f"{path}: broker.password_file: {tmp_path / 'nowhere.txt'}: No such file or directory"
    )


def test_the_error_of_a_binary_password_file_names_it(write, tmp_path):
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in refusal(load_device, write("broker: {password_file: secret}"))


def test_password_and_password_file_together_are_refused(write):
    path = write("broker: {password: a, password_file: b}")
    assert "both set; leave one out" in refusal(load_gateway, path)


def test_a_password_is_never_shown(write):
    assert "hunter2" not in repr(load_gateway(write("broker: {password: hunter2}"), {}))
    assert "90210" not in refusal(load_gateway, write("broker: {password: 90210}"))


# What a wrong file is told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("broker: {prot: 5}", "broker.prot: unknown key; did you mean broker.protocol?"),
        ("brokr: {url: x}", "brokr: unknown key; did you mean broker?"),
        ("url: x", "url: unknown key; did you mean broker.url?"),
        ("verify: {zzz: 1}", "verify.zzz: unknown key; the keys here are: sample"),
        ("5: x", "5: unknown key; the keys here are: broker, callback, callbacks"),
        ("scheduler: {starve_s: 1}", "unknown key; set gateway.local_after, which decides it"),
        ("broker: {username: 12}", "broker.username: expected text, got 12 (int); put it in quot"),
        ("broker: {username:}", "broker.username: expected text, got nothing"),
        (
            "broker: {url: 5}",
            "broker.url: expected text or a list of texts, as in [one, two], got 5 (int); "
            "put it in quotes",
        ),
        ("broker: {protocol: 4}", "broker.protocol: expected 5 or 3.1.1, got 4 (int)"),
        ("broker: {embedded: no}", "expected auto, never or always, got False (bool)"),
        ("wire: {qos: yes}", "wire.qos: expected 0, 1 or 2, got True (bool)"),
        ("wire: {max_message_bytes: 12}", "from 4096 up to 256000000, got 12 (int)"),
        ("gateway: {local_after: fast}", "expected a number from 0, got 'fast' (str)"),
        ("broker: {connect_timeout_s: 0}", "expected a number over 0, got 0 (int)"),
        ("scheduler: {first_lease_s: .inf}", "scheduler.first_lease_s: expected a number"),
        ("scheduler: {quarantine_s: 0}", "scheduler.quarantine_s: expected a number over 0"),
        ("scheduler: {max_window: 0}", "scheduler.max_window: expected a whole number from 1"),
        ("broker: 5", "broker: expected keys with values, got a value of type int"),
        ("gateway: {group: short}", "gateway.group: use 12 to 64 letters"),
        (
            "gateway: {group: 12345678901234567890}",
            "gateway.group: expected text; put it in quotes",
        ),
        ("pipelines: [a]", "pipelines: expected keys with values, got ['a'] (list)"),
        ("tiles: 1x3", "tiles: '1x3' is not a tile plan"),
        ("wire: {prefix: /x}", "wire.prefix: '/x' cannot begin a topic"),
        ("dashboard: {listen: 8080}", "dashboard.listen: expected text, got 8080 (int)"),
        ("dashboard: {listen: here}", "dashboard.listen: 'here' is not host:port"),
        ("dashboard: {listen: '::1:80'}", "dashboard.listen: '::1:80' is not host:port"),
        ("dashboard: {listen: 'a:99999'}", "dashboard.listen: 'a:99999' is not host:port"),
        ("dashboard: {hosts: ['https://a']}", "dashboard.hosts: 'https://a' is not the name of"),
        ("dashboard: {enabled: maybe}", "dashboard.enabled: expected auto, never or always"),
        ("dashboard: {proxy: {trusted: [me]}}", "dashboard.proxy.trusted: 'me' is no address"),
        ("dashboard: {proxy: {user_header: 'X:'}}", "proxy.user_header: 'X:' is not the name of"),
        ("dashboard: {proxy: {role: admin}}", "proxy.role: expected viewer or operator"),
        ("joining: {listen: 8884}", "joining.listen: expected text, got 8884 (int)"),
        ("joining: {listen: everywhere}", "joining.listen: 'everywhere' is not host:port"),
        ("gateway: {id: A}", "gateway.id: 'A' is not an id"),
        ("pipelines: {Bad: x}", "pipelines.Bad: 'Bad' is not an id"),
        ("broker: {cert: a}", "broker.cert: broker.key is missing; give both or none"),
        ("broker: {key: a}", "broker.key: broker.cert is missing; give both or none"),
        (
            "homeassistant: {discovery: on}",
            'homeassistant.discovery: expected "" or auto, got True',
        ),
        ("homeassistant: {prefix: a/#}", "homeassistant.prefix: 'a/#' is no topic; use 1 to 64"),
        ("homeassistant: {status: ''}", "homeassistant.status: '' is no topic; use 1 to 64"),
        ("log_format: xml", "log_format: expected text or json, got 'xml' (str)"),
        (f"post: [{'a' * 99}]", "aaa… (list)"),
    ],
)
def test_the_error_of_a_wrong_value_names_file_key_and_expected_type(write, text, message):
    path = write(text)
    refused = refusal(load_gateway, path)
    assert refused.startswith(f"{path}: ")
    assert message in refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("broker: [", ":1:10: expected the node content"),
        ("broker:\n\turl: x", ":2:1: found character '\\t'"),
        ("broker: {url: a, url: b}", ":1:18: the key 'url' is repeated"),
        ("a: &x 1\nb: *x", ":1:4: aliases, anchors and tags are not allowed"),
        ("a: !!python/name:os.system x", ":1:4: aliases, anchors and tags are not allowed"),
        ("? [1]\n: 2", ":1:3: found unhashable key"),
        ("- 1", ": expected keys with values, got [1] (list)"),
        ("post: 2024-99-99", ": month must be in 1..12"),
        ("[" * 5000, ": nested too deeply"),
        ("\x00", ": unacceptable character"),
        ("#" * 1_000_001, ": over 1000000 bytes"),
    ],
)
def test_the_error_of_a_file_that_is_not_plain_yaml_names_the_line(write, text, message):
    path = write(text)
    assert refusal(load_gateway, path).startswith(f"{path}{message}")


def test_a_missing_file_is_refused(tmp_path):
    path = tmp_path / "nope.yaml"
    assert refusal(load_gateway, path) == f"{path}: No such file or directory"


def test_a_folder_is_refused(tmp_path):
    assert refusal(load_device, tmp_path) == f"{tmp_path}: Is a directory"


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "fog.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert refusal(load_device, path) == f"{path}: not UTF-8 text"


def test_a_device_may_not_have_the_gateways_own_id(write):
    path = write("device: {id: local}")
    assert "'local' is the gateway's own" in refusal(load_device, path)


# What is shipped


def test_the_shipped_file_has_every_key():
    assert load_gateway(ROOT / "config.yaml", {}).gateway.inbox == str(ROOT / "inbox")
    text = (ROOT / "config.yaml").read_text("utf-8")
    missing = [key for key in _keys_of(GatewayConfig()) if f"{key}:" not in text]
    assert missing == []


def test_the_shipped_file_equals_the_defaults():
    shipped = load_gateway(ROOT / "config.yaml", {})
    plain = GatewayConfig()
    assert dataclasses.replace(shipped, gateway=plain.gateway, models=plain.models) == plain


@pytest.mark.parametrize("path", sorted((ROOT / "devices").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_board_is_a_valid_device(path):
    named = load_device(path, {}).device.id
    assert named in ("", path.stem)


def test_reading_the_configuration_imports_nothing_heavy():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, fogmqtt.config; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"cv2", "numpy", "PIL", "paho", "rich"} & set(loaded)


def _keys_of(config):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _keys_of(value)
        else:
            yield field.name


# Streams


def test_each_stream_has_its_keys_and_paths_are_relative_to_the_file(write, tmp_path):
    (tmp_path / "secret").write_text("x\n")
    text = """
    streams:
      yard: {source: "rtsp://camera/1", fps: 10, username: me, password_file: secret}
      clip: {source: films/one.mp4, keep: all, output: [topic, "folder:out"]}
      gate: {source: "v4l2:/dev/video0", priority: 2}
      kept: {source: mqtt, record: {folder: records, max_bytes: 5000}}
      pushed: {source: mqtt}
    """
    streams = load_gateway(write(text), {}).streams
    assert list(streams) == ["yard", "clip", "gate", "kept", "pushed"]
    assert (streams["yard"].source, streams["yard"].fps) == ("rtsp://camera/1", 10)
    assert streams["yard"].password_file == str(tmp_path / "secret")
    assert streams["clip"].source == str(tmp_path / "films/one.mp4")
    assert streams["clip"].output == ("topic", f"folder:{tmp_path / 'out'}")
    assert streams["kept"].record == RecordSettings(str(tmp_path / "records"), 5000)
    assert (streams["gate"].source, streams["pushed"].source) == ("v4l2:/dev/video0", "mqtt")
    assert streams["gate"] == dataclasses.replace(
        StreamSettings(), source="v4l2:/dev/video0", priority=2
    )


def test_the_environment_overrides_a_key_of_a_stream(write):
    path = write("streams: {yard: {source: mqtt, fps: 10}}")
    streams = load_gateway(path, {"FOGMQTT_STREAMS__YARD__FPS": "5"}).streams
    assert (streams["yard"].fps, streams["yard"].source) == (5, "mqtt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{yard: {source: mqtt, fsp: 3}}", "unknown key; did you mean streams.yard.fps?"),
        ("{yard: {fps: 3}}", "streams.yard: source is missing; name a camera or a file"),
        ("{yard: 3}", "streams.yard: expected keys with values, got 3"),
        ("{Yard: {source: mqtt}}", "streams.Yard: 'Yard' is not an id"),
        ("{yard: {source: mqtt, fps: -1}}", "streams.yard.fps: expected a number from 0 up to"),
        ("{yard: {source: mqtt, keep: some}}", "expected latest, all or keys"),
        ("{yard: {source: mqtt, max_age_s: 0}}", "streams.yard.max_age_s: expected a number over"),
        (
            "{yard: {source: mqtt, events: {zones: {door: '0,0 1,1'}}}}",
            "streams.yard.events.zones.door: '0,0 1,1' has 2 corner(s); write 3 to 100",
        ),
        ("{yard: {source: mqtt, motion: {sensitivity: 101}}}", "a whole number from 0 up to 100"),
        ("{yard: {source: mqtt, format: gif}}", "streams.yard.format: 'gif' is no format"),
        ("{yard: {source: mqtt, record: {max_bytes: 0}}}", "a whole number from 1"),
        ("{yard: {source: mqtt, retry_s: 40}}", "30 is less than retry_s, which is 40"),
        (
            "{yard: {source: mqtt, password_file: missing}}",
            "streams.yard.password_file: there is no such file",
        ),
        ("{yard: {source: mqtt}, yard: {source: mqtt}}", "the key 'yard' is repeated"),
    ],
)
def test_a_wrong_stream_is_refused_by_its_name(write, text, expected):
    assert expected in refusal(load_gateway, write(f"streams: {text}"))
