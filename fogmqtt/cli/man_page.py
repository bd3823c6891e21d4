"""A parser of options as a manual page, in the macros `man` of roff."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from fogmqtt import __version__

#: Commands have sections of their own, and each command has `--help`.
_NOT_LISTED: Final = (argparse._SubParsersAction, argparse._HelpAction)


def man_page(parser: argparse.ArgumentParser, see_also: Sequence[str]) -> str:
    """Return the page of section 1 for a program and its commands.

    In the epilog of a parser, a line that ends with a colon is the heading of the lines below it.
    """
    description = parser.description or ""
    lines = [
        f'.TH {_escaped(parser.prog.upper())} 1 "" "fogmqtt {__version__}" "fogmqtt"',
        ".SH NAME",
        rf"{_escaped(parser.prog)} \- {_escaped(description[:1].lower() + description[1:-1])}",
        ".SH SYNOPSIS",
        _synopsis(parser),
        ".SH DESCRIPTION",
        _escaped(description),
        ".SH OPTIONS",
        *_arguments(parser),
    ]
    commands = list(_commands(parser))
    if commands:
        lines.append(".SH COMMANDS")
    for command in commands:
        lines += _command(command)
    lines += _epilog(parser, ".SH")
    lines += [".SH SEE ALSO", ", ".join(rf"\fB{_escaped(name)}\fR(1)" for name in see_also)]
    return "\n".join(lines) + "\n"


def _command(parser: argparse.ArgumentParser) -> list[str]:
    return [
        f".SS {_escaped(parser.prog)}",
        _escaped(parser.description or ""),
        ".PP",
        _synopsis(parser),
        *_arguments(parser),
        *_epilog(parser, ".PP"),
    ]


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _synopsis(parser: argparse.ArgumentParser) -> str:
    parser.color = False  # type: ignore[attr-defined]  # Python 3.14 has it, and colours the usage
    words = parser.format_usage().removeprefix("usage: ").split()
    program = parser.prog.split()
    return rf"\fB{_escaped(parser.prog)}\fR {_escaped(' '.join(words[len(program) :]))}"


def _arguments(parser: argparse.ArgumentParser) -> list[str]:
    lines = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, _NOT_LISTED):
            continue
        lines += [".TP", _heading(action), _escaped((action.help or "") % vars(action))]
    return lines


def _heading(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else rf"\fI{_escaped(_value(action))}\fR"
    names = ", ".join(rf"\fB{_escaped(name)}\fR" for name in action.option_strings)
    return " ".join(part for part in (names, value) if part)


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        return " ".join([action.metavar] if isinstance(action.metavar, str) else action.metavar)
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return action.dest.upper() if action.option_strings else action.dest


def _epilog(parser: argparse.ArgumentParser, macro: str) -> list[str]:
    """Return the epilog, line by line as it is, below its headings."""
    lines = []
    for line in (parser.epilog or "").splitlines():
        if not line.endswith(":"):
            lines.append(_escaped(line))
        elif macro == ".SH":
            lines += [".fi", f"{macro} {_escaped(line[:-1].upper())}", ".nf"]
        else:
            lines += [".fi", macro, _escaped(line), ".nf"]
    return [*lines[1:], ".fi"] if lines else []


def _escaped(text: str) -> str:
    r"""Return a text for roff: `\` and `-` are shown as they are, and no line is a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text
