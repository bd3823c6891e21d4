"""Puts one bug of tests/planted.py into the syntax tree of its module.

Fragments of Python are compared as syntax: formatting, comments and line breaks do not matter.
"""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent

from tests.planted import Bug

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class NotPlantedError(Exception):
    """A bug does not fit the source: the code that it changes is missing or ambiguous."""


def plant(bug: Bug, root: Path) -> str:
    """Return the source of the bug's module under `root` with the bug in it.

    Raises NotPlantedError where the module, the function or the changed code is not found once.
    """
    try:
        source = (root / bug.path).read_text("utf-8")
    except FileNotFoundError as error:
        raise NotPlantedError(f"{bug.name}: there is no file {bug.path}") from error
    return plant_in_source(bug, source)


def plant_in_source(bug: Bug, source: str) -> str:
    """Return this source of the bug's module with the bug in it. Raises NotPlantedError."""
    tree = ast.parse(source)
    function = _find_function(bug, tree)
    old, new = _parse(bug, "old", bug.old), _parse(bug, "new", bug.new)
    if not old:
        raise NotPlantedError(f"{bug.name}: `old` is empty; name the code that the bug changes")
    if _dump(old) == _dump(new):
        raise NotPlantedError(f"{bug.name}: `old` and `new` are the same code")
    match old, new:
        case [ast.Expr(value=old_value)], [ast.Expr(value=new_value)]:
            _replace_expression(bug, function, old_value, new_value)
        case _:
            _replace_statements(bug, function, old, new)
    return ast.unparse(tree)


def _find_function(bug: Bug, tree: ast.Module) -> _Function:
    found: list[ast.AST] = [tree]
    for name in bug.function.split("."):
        found = [child for scope in found for child in _definitions(scope) if child.name == name]
    functions = [node for node in found if isinstance(node, _Function)]
    if len(functions) != 1:
        count = f"{len(functions)} functions" if functions else "no function"
        raise NotPlantedError(f"{bug.name}: {bug.module} has {count} named {bug.function}")
    return functions[0]


def _definitions(scope: ast.AST) -> list[ast.ClassDef | _Function]:
    """The classes and functions that are defined directly in a module, class or function."""
    children = ast.iter_child_nodes(scope)
    return [one for one in children if isinstance(one, ast.ClassDef | _Function)]


def _parse(bug: Bug, field: str, code: str) -> list[ast.stmt]:
    try:
        return ast.parse(dedent(code)).body
    except SyntaxError as error:
        raise NotPlantedError(f"{bug.name}: `{field}` is not Python: {error}") from error


def _replace_expression(bug: Bug, function: _Function, old: ast.expr, new: ast.expr) -> None:
    wanted = ast.dump(old)
    # A target of an assignment is no match: its dump says Store where that of `old` says Load.
    found = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.expr) and ast.dump(node) == wanted
    ]
    _require_one(bug, len(found))
    _ReplaceNode(found[0], new).visit(function)


class _ReplaceNode(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old = old
        self._new = new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)


def _replace_statements(
    bug: Bug, function: _Function, old: list[ast.stmt], new: list[ast.stmt]
) -> None:
    wanted, length = _dump(old), len(old)
    found = [
        (block, start)
        for block in _blocks(function)
        for start in range(len(block) - length + 1)
        if _dump(block[start : start + length]) == wanted
    ]
    _require_one(bug, len(found))
    block, start = found[0]
    # A block must not be empty.
    block[start : start + length] = new or [ast.Pass()]


def _blocks(function: _Function) -> list[list[ast.stmt]]:
    """Every list of statements in the function: its body, the branches of its `if`s and so on."""
    values = (value for node in ast.walk(function) for _, value in ast.iter_fields(node))
    return [one for one in values if isinstance(one, list) and one and isinstance(one[0], ast.stmt)]


def _require_one(bug: Bug, count: int) -> None:
    if count == 1:
        return
    code = ast.unparse(ast.parse(dedent(bug.old)))
    place = f"{bug.name}: {bug.function} in {bug.path}"
    if count == 0:
        raise NotPlantedError(f"{place} does not contain this code:\n{code}")
    raise NotPlantedError(
        f"{place} contains this code {count} times; "
        f"add the code around it to `old` and `new` until only one place fits:\n{code}"
    )


def _dump(statements: list[ast.stmt]) -> list[str]:
    return [ast.dump(one) for one in statements]
