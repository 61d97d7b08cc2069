"""Every message that the library raises or warns with, found in its source.

What changes from case to case stands as "…": `f"There is no folder {path}."` is the message
"There is no folder …."
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from places import REPOSITORY

FOLDERS = (REPOSITORY / "hf_token_compress", REPOSITORY / "kernels/torch-ext")
CHANGING = "…"
_WARNINGS = {"warn", "warn_once", "warning"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def messages() -> dict[str, list[Path]]:
    """The messages of the library, each with the files that hold it."""
    return messages_of(*FOLDERS)


def messages_of(*folders: Path) -> dict[str, list[Path]]:
    """The messages in all modules of some folders, each with the files that hold it."""
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
    }
    names = _Names(trees)
    found: dict[str, list[Path]] = defaultdict(list)
    for path, tree in trees.items():
        for text in _of_module(tree, names):
            if path not in found[text]:
                found[text].append(path)
    return dict(found)


class _Names:
    """Constants and functions of the library, by their names."""

    def __init__(self, trees: dict[Path, ast.Module]) -> None:
        self.constants: dict[str, ast.expr] = {}
        self.functions: dict[str, Function] = {}
        for tree in trees.values():
            for node in ast.walk(tree):
                if isinstance(node, Function):
                    self.functions.setdefault(node.name, node)
            for statement in tree.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    name = statement.targets[0].id
                    if name.isupper():
                        self.constants.setdefault(name, statement.value)


def _of_module(tree: ast.Module, names: _Names) -> Iterator[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not call.args or not _tells(call):
            continue
        around = [one for one in functions if one.lineno <= call.lineno <= (one.end_lineno or 0)]
        for text in _texts(call.args[0], around, names):
            message = re.sub(f"{CHANGING}+", CHANGING, " ".join(text.split()))
            if re.search(r"[a-z]{2}", message):
                yield message


def _tells(call: ast.Call) -> bool:
    """Whether a call makes an exception or warns."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name.endswith(("Error", "BadParameter")) or name in _WARNINGS


def _texts(node: ast.expr, around: list[Function], names: _Names) -> list[str]:
    """What an expression may say; nothing where that is a variable alone."""
    if isinstance(node, ast.IfExp):
        return _texts(node.body, around, names) + _texts(node.orelse, around, names)
    if isinstance(node, ast.Name):
        if node.id in names.constants:
            return _texts(names.constants[node.id], [], names)
        assigned = (
            statement.value
            for function in around
            for statement in ast.walk(function)
            if isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and statement.targets[0].id == node.id
        )
        return [text for value in assigned for text in _texts(value, [], names)]
    if isinstance(node, ast.Call):
        called = names.functions.get(getattr(node.func, "id", ""))
        return [] if called is None else _sentences(called, names)
    text = _text(node, names)
    return [] if text == CHANGING else [text]


def _sentences(function: Function, names: _Names) -> list[str]:
    """The sentences in a function that makes messages, without its docstring."""
    start = int(ast.get_docstring(function) is not None)
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
            text = _text(node, names)
            if " " in text and text.endswith("."):
                found.append(text)
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    for statement in function.body[start:]:
        visit(statement)
    return found


def _text(node: ast.expr, names: _Names) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("%s", CHANGING)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, names) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, names)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, names) + _text(node.right, names)
    if isinstance(node, ast.Name) and node.id in names.constants:
        return _text(names.constants[node.id], names)
    return CHANGING
