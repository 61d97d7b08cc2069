"""The API reference has every public name: those of `__all__`, and those that the pages import."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from code_blocks import code_blocks
from places import REPOSITORY

import hf_token_compress

DOCS = REPOSITORY / "docs"
PAGES = sorted((DOCS / "reference").glob("*.md"))
LISTED = [
    name
    for page in PAGES
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
]


def public_names() -> Iterator[str]:
    yield from (f"hf_token_compress.{name}" for name in hf_token_compress.__all__)
    for module in pkgutil.walk_packages(hf_token_compress.__path__, "hf_token_compress."):
        if module.ispkg:
            names = getattr(import_module(module.name), "__all__", ())
            yield from (f"{module.name}.{name}" for name in names)


def imported_names() -> Iterator[str]:
    for page in [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]:
        for block in code_blocks(page):
            for node in ast.walk(ast.parse(block.text if block.language == "python" else "")):
                module = getattr(node, "module", None) or ""
                if isinstance(node, ast.ImportFrom) and module.startswith("hf_token_compress"):
                    yield from (f"{module}.{name.name}" for name in node.names)


def named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def missing(names: Iterator[str]) -> list[str]:
    """Names whose objects are not in the reference, under this or another name."""
    there = [named(name) for name in LISTED]
    unlisted = [(name, named(name)) for name in sorted({*names} - {*LISTED})]
    return [
        name
        for name, value in unlisted
        if not isinstance(value, ModuleType)  # its names are looked up themselves
        and not any(value is item for item in there)
    ]


def test_public_names_are_in_the_reference() -> None:
    assert not missing(public_names())


def test_names_that_the_pages_import_are_in_the_reference() -> None:
    assert not missing(imported_names())


def test_the_reference_has_each_name_once() -> None:
    assert not [name for name, times in Counter(LISTED).items() if times > 1]
