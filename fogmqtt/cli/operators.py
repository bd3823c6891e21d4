"""`fog-gateway operators`: what a pipeline can be made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fogmqtt.log import one_line
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.describe import (
    OperatorDescription,
    OperatorList,
    describe,
    describe_all,
    format_images,
    format_parameters,
)

#: The package whose operators need no word of where they come from.
_OURS = "fogmqtt"
#: Columns of a terminal in which there is room for summaries.
_WIDE = 130
#: Letters in a line of running text, at most.
_READABLE = 96
#: Begins the parameters in an operator's docstring.
_HEADING = "Parameters\n----------\n"
_IN = "    "
_LEGEND = (
    "images: 8, 16, f32 are uint8, uint16, float32; gray and colour unless it says\n"
    "exact: tiles give the whole image's result, bit for bit; * see below\n"
    "gateway: done on the whole image, by the gateway; facts: no image comes out\n"
    "fog-gateway operators NAME tells all about one"
)


def show_operators(console: Console, name: str | None, *, as_json: bool) -> int:
    """Print all operators, or one with everything about it. Raises PipelineError."""
    if as_json:
        _print_json(describe(name) if name else describe_all())
    elif name:
        print(help_of(describe(name), min(console.width, _READABLE)))
    else:
        _print_table(console, describe_all())
    return 0


def help_of(operator: OperatorDescription, width: int = 80) -> str:
    """Everything about one operator, for people, in lines of so many letters at most."""
    prose, _, documented = operator.text.partition(_HEADING)
    parts = [f"{operator.name} {format_parameters(operator.parameters)}".rstrip()]
    parts += (_filled(paragraph, width) for paragraph in prose.split("\n\n"))
    parameters = "\n".join(_parameters(operator, documented, width))
    facts = "\n".join(textwrap.fill(fact, width) for fact in _facts(operator))
    example = f"Example: fog-gateway run photo.jpg --pipeline '{operator.example}'"
    return "\n\n".join(filter(None, (*parts, parameters, facts, example)))


def _filled(paragraph: str, width: int) -> str:
    """In lines of this width; what is indented stays as it is."""
    return paragraph if paragraph.startswith(" ") else textwrap.fill(paragraph.strip(), width)


def _parameters(operator: OperatorDescription, documented: str, width: int) -> Iterator[str]:
    """Each with its type and default, and what its author says of it."""
    said: dict[str, list[str]] = {}
    for line in filter(None, documented.splitlines()):
        if line.startswith(" ") and said:
            said[next(reversed(said))].append(line.strip())
        else:
            said[line] = []
    known = {name: head for head in said for name in head.partition(" : ")[0].split(", ")}
    for name, one in operator.parameters.items():
        if name not in known:
            said[f"{name} : {one.type}"] = []
    for head, lines in said.items():
        yield f"{head}{_defaults(operator, head)}"
        if lines:
            yield textwrap.fill(" ".join(lines), width, initial_indent=_IN, subsequent_indent=_IN)


def _defaults(operator: OperatorDescription, head: str) -> str:
    names = head.partition(" : ")[0].split(", ")
    ones = [operator.parameters[name] for name in names if name in operator.parameters]
    if any(one.default is None for one in ones):
        return "; must be given"
    if not ones:
        return ""
    return f"; default {', '.join(one.default or 'empty' for one in ones)}"


def _facts(operator: OperatorDescription) -> Iterator[str]:
    taken = (f"{kind} {', '.join(dtypes)}" for kind, dtypes in operator.takes.items())
    yield f"Takes: {'; '.join(taken) or 'what its parameters decide'}"
    yield f"Gives: {'facts' if operator.measures else 'an image'}"
    yield f"Exactness: {operator.exact}"
    if operator.tiled and operator.halo is not None:
        yield f"Halo: {operator.halo} pixels with these defaults"
    yield f"From: {operator.package} {operator.version}".rstrip()


def _print_json(what: OperatorDescription | OperatorList) -> None:
    print(msgspec.json.format(msgspec.json.encode(what)).decode())


def _print_table(console: Console, found: OperatorList) -> None:
    console.print(_table(found.operators, wide=console.width >= _WIDE))
    console.print()
    console.print(Text(_LEGEND), soft_wrap=True)
    notes = [*_notes(found.operators), *_origins(found.operators)]
    for line in (*notes, *(f"skipped: {one_line(problem)}" for problem in found.problems)):
        console.print(Text(line))


def _table(operators: Iterable[OperatorDescription], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operator", no_wrap=True)
    table.add_column("parameters")
    table.add_column("images")
    table.add_column("exact", no_wrap=True)
    if wide:
        table.add_column("what it does")
    for one in operators:
        row = [one.name, format_parameters(one.parameters), format_images(one.takes), _briefly(one)]
        table.add_row(*map(Text, [*row, one.summary] if wide else row))
    return table


def _briefly(operator: OperatorDescription) -> str:
    if not operator.tiled:
        return "gateway"
    noted = "" if operator.exact == "exact" else " *"
    return f"{'facts' if operator.measures else 'exact'}{noted}"


def _notes(operators: Sequence[OperatorDescription]) -> Iterator[str]:
    """What is to be said of exactness, once for all of which it is said."""
    by_sentence: dict[str, list[str]] = {}
    for one in operators:
        if one.tiled and one.exact != "exact":
            by_sentence.setdefault(one.exact, []).append(one.name)
    for sentence, names in by_sentence.items():
        yield f"* {', '.join(names)}: {sentence}"


def _origins(operators: Sequence[OperatorDescription]) -> Iterator[str]:
    by_package: dict[str, list[str]] = {}
    for one in operators:
        if one.package != _OURS:
            by_package.setdefault(f"{one.package} {one.version}".rstrip(), []).append(one.name)
    for package, names in by_package.items():
        yield f"from {package}: {', '.join(names)}"


def as_markdown() -> str:
    """docs/operators.md: the operators that come with fogmqtt."""
    lines = [
        "# Operators",
        "",
        "What a pipeline can be made of; written by `fog-gateway operators --markdown`.",
        "",
        *(f"{line}  " for line in _LEGEND.splitlines()),
        "",
        "| operator | parameters | images | exact | what it does |",
        "|---|---|---|---|---|",
    ]
    ours = [describe(name) for name in registry.names() if registry.origin(name).package == _OURS]
    for one in ours:
        cells = [one.name, f"`{format_parameters(one.parameters)}`" if one.parameters else ""]
        cells += [format_images(one.takes), _briefly(one).replace("*", "\\*"), one.summary]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    notes = (f"- {note.removeprefix('* ')}" for note in _notes(ours))
    return "\n".join([*lines, "", "## \\* What to know of exactness", "", *notes, ""])
