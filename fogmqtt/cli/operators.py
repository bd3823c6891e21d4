"""`fog-gateway operators`: lists and describes the operators."""

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

#: The package whose operators are listed without an origin.
_OURS = "fogmqtt"
#: The columns of a terminal that has room for summaries.
_WIDE = 130
#: The largest length of a line of running text.
_MAX_LINE = 96
#: The heading of the parameters in an operator's docstring.
_HEADING = "Parameters\n----------\n"
_INDENT = "    "
_LEGEND = (
    "images: 8, 16, f32 are uint8, uint16, float32; gray and colour unless noted\n"
    "exact: tiles give the whole image's result, bit for bit; * see below\n"
    "gateway: runs on the whole image, on the gateway; facts: the result is no image\n"
    "fog-gateway operators NAME describes one operator"
)


def show_operators(console: Console, name: str | None, *, as_json: bool) -> int:
    """Print all operators, or one in detail; return the exit code. Raises PipelineError."""
    if as_json:
        _print_json(describe(name) if name else describe_all())
    elif name:
        print(format_help(describe(name), min(console.width, _MAX_LINE)))
    else:
        _print_table(console, describe_all())
    return 0


def format_help(operator: OperatorDescription, width: int = 80) -> str:
    """Return the description of one operator, in lines of at most `width` characters."""
    prose, _, documented = operator.text.partition(_HEADING)
    parts = [f"{operator.name} {format_parameters(operator.parameters)}".rstrip()]
    parts += (_fill(paragraph, width) for paragraph in prose.split("\n\n"))
    parameters = "\n".join(_parameters(operator, documented, width))
    facts = "\n".join(textwrap.fill(fact, width) for fact in _facts(operator))
    command = "stream rtsp://camera/live" if operator.memory else "run photo.jpg"
    example = f"Example: fog-gateway {command} --pipeline '{operator.example}'"
    return "\n\n".join(filter(None, (*parts, parameters, facts, example)))


def _fill(paragraph: str, width: int) -> str:
    """Wrap a paragraph to this width; an indented one is not changed."""
    return paragraph if paragraph.startswith(" ") else textwrap.fill(paragraph.strip(), width)


def _parameters(operator: OperatorDescription, documented: str, width: int) -> Iterator[str]:
    """Yield each parameter with its type and default, then its documentation."""
    text_by_heading: dict[str, list[str]] = {}
    for line in filter(None, documented.splitlines()):
        if line.startswith(" ") and text_by_heading:
            text_by_heading[next(reversed(text_by_heading))].append(line.strip())
        else:
            text_by_heading[line] = []
    names = {name for heading in text_by_heading for name in _parameter_names(heading)}
    for name, parameter in operator.parameters.items():
        if name not in names:
            text_by_heading[f"{name} : {parameter.type}"] = []
    for heading, lines in text_by_heading.items():
        yield f"{heading}{_defaults(operator, heading)}"
        if lines:
            yield textwrap.fill(
                " ".join(lines), width, initial_indent=_INDENT, subsequent_indent=_INDENT
            )


def _parameter_names(heading: str) -> list[str]:
    """Return the names in a heading such as "low, high : float"."""
    return heading.partition(" : ")[0].split(", ")


def _defaults(operator: OperatorDescription, heading: str) -> str:
    names = _parameter_names(heading)
    parameters = [operator.parameters[name] for name in names if name in operator.parameters]
    if any(parameter.default is None for parameter in parameters):
        return "; required"
    if not parameters:
        return ""
    return f"; default {', '.join(parameter.default or 'empty' for parameter in parameters)}"


def _facts(operator: OperatorDescription) -> Iterator[str]:
    images = (f"{kind} {', '.join(dtypes)}" for kind, dtypes in operator.takes.items())
    yield f"Takes: {'; '.join(images) or 'images that depend on its parameters'}"
    yield f"Gives: {'facts' if operator.measures else 'an image'}"
    yield f"Exactness: {operator.exact}"
    if operator.tiled and operator.halo is not None:
        yield f"Halo: {operator.halo} pixels with these defaults"
    if operator.memory:
        yield f"Memory: {operator.memory} with these defaults; runs on streams only"
    yield f"From: {operator.package} {operator.version}".rstrip()


def _print_json(description: OperatorDescription | OperatorList) -> None:
    print(msgspec.json.format(msgspec.json.encode(description)).decode())


def _print_table(console: Console, listed: OperatorList) -> None:
    console.print(_table(listed.operators, wide=console.width >= _WIDE))
    console.print()
    console.print(Text(_LEGEND), soft_wrap=True)
    notes = [*_notes(listed.operators), *_origins(listed.operators)]
    for line in (*notes, *(f"skipped: {one_line(problem)}" for problem in listed.problems)):
        console.print(Text(line))


def _table(operators: Iterable[OperatorDescription], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operator", no_wrap=True)
    table.add_column("parameters")
    table.add_column("images")
    table.add_column("exact", no_wrap=True)
    if wide:
        table.add_column("what it does")
    for operator in operators:
        parameters, images = format_parameters(operator.parameters), format_images(operator.takes)
        row = [operator.name, parameters, images, _exactness(operator)]
        table.add_row(*map(Text, [*row, operator.summary] if wide else row))
    return table


def _exactness(operator: OperatorDescription) -> str:
    if not operator.tiled:
        return "gateway"
    mark = "" if operator.exact == "exact" else " *"
    return f"{'facts' if operator.measures else 'exact'}{mark}"


def _notes(operators: Sequence[OperatorDescription]) -> Iterator[str]:
    """Yield each sentence on exactness once, with its operators."""
    by_sentence: dict[str, list[str]] = {}
    for operator in operators:
        if operator.tiled and operator.exact != "exact":
            by_sentence.setdefault(operator.exact, []).append(operator.name)
    for sentence, names in by_sentence.items():
        yield f"* {', '.join(names)}: {sentence}"


def _origins(operators: Sequence[OperatorDescription]) -> Iterator[str]:
    """Yield each foreign package with its operators."""
    by_package: dict[str, list[str]] = {}
    for operator in operators:
        if operator.package != _OURS:
            package = f"{operator.package} {operator.version}".rstrip()
            by_package.setdefault(package, []).append(operator.name)
    for package, names in by_package.items():
        yield f"from {package}: {', '.join(names)}"


def as_markdown() -> str:
    """Return the text of docs/operators.md: the operators that come with fogmqtt."""
    lines = [
        "# Operators",
        "",
        "The operators for pipelines. `fog-gateway operators --markdown` writes this page.",
        "",
        *(f"{line}  " for line in _LEGEND.splitlines()),
        "",
        "| operator | parameters | images | exact | what it does |",
        "|---|---|---|---|---|",
    ]
    ours = [describe(name) for name in registry.names() if registry.origin(name).package == _OURS]
    for operator in ours:
        parameters = format_parameters(operator.parameters)
        cells = [operator.name, f"`{parameters}`" if parameters else ""]
        cells += [format_images(operator.takes), _exactness(operator).replace("*", "\\*")]
        cells.append(operator.summary)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    notes = (f"- {note.removeprefix('* ')}" for note in _notes(ours))
    return "\n".join([*lines, "", "## \\* Notes on exactness", "", *notes, ""])
