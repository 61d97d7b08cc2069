"""Fenced code blocks of Markdown files, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_PROGRAM = re.compile(r"(?<![\w/.-])(?:\.venv/bin/)?hf-token-compress (?=[a-z])")
_MODULE = re.compile(r"python (?:-m ([\w.]+)|((?:notebooks|kernels)/[\w/]+\.py))")
_END = re.compile(r"\s*(?:;|\||&&|\}|>|$)")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: Number of its first line of code in the file, from 1.
        language: What follows the opening fence.
        text: The code.
        reason: Why it is not run; None for a block that is.
    """

    line: int
    language: str
    text: str
    reason: str | None


def code_blocks(path: Path) -> list[Block]:
    """All fenced blocks of a file, in order."""
    blocks, opened, language = [], 0, ""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if not opened:
            opened, language = number + 1, line.removeprefix("```")
            continue
        marker = NOT_RUN.fullmatch(lines[opened - 2]) if opened > 1 else None
        text = "\n".join(lines[opened:number]) + "\n"
        blocks.append(Block(opened + 1, language, text, marker[1] if marker else None))
        opened = 0
    return blocks


def command_lines(text: str) -> Iterator[str]:
    """The lines of a shell block, continued ones joined, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def library_commands(text: str) -> Iterator[list[str]]:
    """Arguments of every call of hf-token-compress in a shell block.

    Shell variables such as `$seed` and `"$@"` stay as they are.
    """
    for line in command_lines(text):
        for found in _PROGRAM.finditer(line):
            yield _arguments(line[found.end() :])


def module_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Module or path, and arguments, of every call of a Python program in a shell block."""
    for line in command_lines(text):
        for found in _MODULE.finditer(line):
            yield found[1] or found[2], _arguments(line[found.end() :])


def flags(arguments: list[str]) -> list[str]:
    """The long options among the arguments."""
    return [word.split("=")[0] for word in arguments if word.startswith("--")]


def _arguments(text: str) -> list[str]:
    """The words up to the end of a command."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words = []
    for word in lexer:
        if set(word) <= set(";|&>}"):
            break
        words.append(word)
    return words
