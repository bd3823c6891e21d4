"""What is generated from the parsers: completion for shells, and manual pages."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fogmqtt.cli.man_page import man_page
from fogmqtt.errors import ConfigError, UsageError, reason_of

#: Program → the module with its parser.
_MODULES: Final = {
    "fog-gateway": "fogmqtt.cli.gateway",
    "fog-device": "fogmqtt.cli.device",
    "fog-dashboard": "fogmqtt.cli.dashboard",
}
#: Shell → the name of the file in which it looks for the completion of a program.
_FILES: Final = {"bash": "{}", "zsh": "_{}", "fish": "{}.fish"}
#: Words in the name of an option's value, and whether it is a folder.
_PATHS: Final = {"FILE": False, "IMAGE": False, "PATH": False, "DIR": True, "SPOOL": True}


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the options of `completion`."""
    parser.add_argument("shell", choices=tuple(_FILES), help="the shell that completes")
    _add_program(parser)
    parser.epilog = """\
examples:
  fog-gateway completion bash -o ~/.local/share/bash-completion/completions
  fog-gateway completion fish -o ~/.config/fish/completions
  fog-gateway completion zsh -o ~/.zfunc    # with fpath+=~/.zfunc before compinit in ~/.zshrc

packages:
  shtab, of the extra completion: pip install 'fogmqtt[completion]'"""


def add_man(parser: argparse.ArgumentParser) -> None:
    """Add the options of `man`."""
    _add_program(parser)
    parser.epilog = """\
examples:
  fog-gateway man | man -l -                      # read it
  fog-gateway man fog-device | man -l -
  fog-gateway man -o ~/.local/share/man/man1      # then: man fog-gateway"""


def completion(options: argparse.Namespace) -> int:
    """Print or write the completion for a shell. Returns the exit code. Raises UsageError."""
    name = _FILES[options.shell]
    return _give(options, name, lambda program: _completion(parser_of(program), options.shell))


def man(options: argparse.Namespace) -> int:
    """Print or write manual pages. Returns the exit code. Raises ConfigError."""
    return _give(options, "{}.1", lambda program: man_page(parser_of(program), _others(program)))


def parser_of(program: str) -> argparse.ArgumentParser:
    """Return the parser of a program, such as `fog-device`."""
    parser: argparse.ArgumentParser = importlib.import_module(_MODULES[program]).make_parser()
    return parser


def _add_program(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "program",
        nargs="?",
        choices=tuple(_MODULES),
        default="fog-gateway",
        help="which program (default: fog-gateway)",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        help="write a file for each program into this folder, instead of printing one",
    )


def _give(options: argparse.Namespace, name: str, make: Callable[[str], str]) -> int:
    if options.out is None:
        print(make(options.program), end="")
        return 0
    for program in _MODULES:
        path = options.out / name.format(program)
        text = make(program)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except OSError as problem:
            raise ConfigError(f"{path}: {reason_of(problem, path.parent)}") from None
        print(f"wrote {path}")
    return 0


def _completion(parser: argparse.ArgumentParser, shell: str) -> str:
    try:
        import shtab
    except ImportError:
        raise UsageError(
            "completion needs the package shtab: pip install 'fogmqtt[completion]'"
        ) from None
    _mark_paths(parser, {False: shtab.FILE, True: shtab.DIRECTORY})
    return shtab.complete(parser, shell=shell)


def _mark_paths(
    parser: argparse.ArgumentParser, kinds: dict[bool, dict[str, str | dict[str, str]]]
) -> None:
    """Tell shtab which values are paths."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark_paths(command, kinds)
        for word in str(action.metavar or "").split("|"):
            if word in _PATHS:
                action.complete = kinds[_PATHS[word]]  # type: ignore[attr-defined]


def _others(program: str) -> list[str]:
    return [name for name in _MODULES if name != program]
