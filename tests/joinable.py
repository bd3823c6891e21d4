"""A gateway that boards can join, made by `fog-gateway init`: a real Mosquitto, real programs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fogmqtt.joining.bundle import JoinBundle, read_invitation
from fogmqtt.joining.site import Site
from fogmqtt.joining.versions import LAUNCHER
from tests.fog import free_port, start_mosquitto
from tests.processes import PATIENCE_S, Program

ROOT = Path(__file__).parents[1]


@dataclass
class JoinableFog:
    """Its folder has `fog/`, made by init, and the boards' saved identities."""

    folder: Path
    programs: list[Program] = field(default_factory=list)
    broker: subprocess.Popen[bytes] | None = None

    @property
    def site(self) -> Site:
        return Site.open(self.folder / "fog")

    @property
    def config(self) -> Path:
        return self.folder / "fog" / "config.yaml"

    @property
    def broker_log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def init(self, *more: str) -> subprocess.CompletedProcess[str]:
        ports = [str(free_port()) for _ in range(3)]
        names = ("--port", "--join-port", "--local-port")
        chosen = [word for pair in zip(names, ports, strict=True) for word in pair]
        return self.gateway("init", "--address", "127.0.0.1", *chosen, *more, configured=False)

    def start_broker(self) -> None:
        site = self.site
        url = f"mqtt://127.0.0.1:{site.settings.local_port}"
        self.broker = start_mosquitto(site.broker_config, self.folder / "mosquitto.log", url)

    def serve(self, **settings: str) -> Program:
        program = self.start(
            "gateway", ["-m", "fogmqtt.cli.gateway", "--config", str(self.config)], settings
        )
        program.says("mariem is online")
        return program

    def gateway(
        self,
        *arguments: str,
        configured: bool = True,
        code: int = 0,
        within: float = PATIENCE_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the gateway to its end, which must come with this exit code."""
        config = ("--config", str(self.config)) if configured else ()
        done = self._run(["-m", "fogmqtt.cli.gateway", *config, *arguments], {}, within)
        assert done.returncode == code, done.stderr
        return done

    def invite(self, board: str, *more: str) -> JoinBundle:
        file = self.folder / f"{board}.fog"
        self.gateway("invite", board, "-o", str(file), *more)
        found = read_invitation(file.read_text(), str(file))
        assert isinstance(found, JoinBundle)
        return found

    def board(self, name: str, *more: str, home: str = "", **settings: str) -> Program:
        """Start a board; `home` is where its identity is, by default one for each name."""
        command = ["-m", "fogmqtt.cli.device", "--id", name, *more]
        return self.start(name, command, settings | self._home(home or name))

    def installed_board(
        self, name: str, versions: Path, *, trial_s: int = 60, **settings: str
    ) -> Program:
        """Start a board by `launch.sh`, as its service does; it runs what is installed."""
        command = ["sh", str(LAUNCHER), sys.prefix, str(versions), str(trial_s), "--id", name]
        return self.start(name, command, {"PYTHONPATH": ""} | settings | self._home(name), ())

    def try_board(
        self, name: str, *more: str, home: str = "", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a board that ends by itself."""
        command = ["-m", "fogmqtt.cli.device", "--id", name, *more]
        return self._run(command, settings | self._home(home or name))

    def identity_of(self, board: str) -> Path:
        return Path(self._home(board)["XDG_CONFIG_HOME"]) / "fogmqtt"

    def close(self) -> None:
        for program in reversed(self.programs):
            if program.running:
                program.kill()
        if self.broker is not None:
            self.broker.kill()
            self.broker.wait(10)

    def _home(self, name: str) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(self.folder / "homes" / name)}

    def start(
        self,
        name: str,
        command: list[str],
        settings: dict[str, str],
        program: tuple[str, ...] = (sys.executable,),
    ) -> Program:
        log = self.folder / f"{name}-{len(self.programs)}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*program, *command],
                cwd=self.folder,
                env=self._environment(settings),
                stdout=out,
                stderr=out,
            )
        started = Program(process, log)
        self.programs.append(started)
        return started

    def _run(
        self, command: list[str], settings: dict[str, str], within: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=self._environment(settings),
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        mine = {key: value for key, value in os.environ.items() if not key.startswith("FOGMQTT_")}
        ours = {
            "FOGMQTT_DASHBOARD__ENABLED": "never",
            "FOGMQTT_DEVICE__WORKERS": "1",
            "PYTHONPATH": str(ROOT),
        }
        # A board's own identity folder is there, so that root does not use the system's.
        home = settings.get("XDG_CONFIG_HOME")
        if home:
            (Path(home) / "fogmqtt").mkdir(parents=True, exist_ok=True)
        return mine | ours | settings
