"""Code blocks of the documentation run, or say why not and are written for today's options."""

from __future__ import annotations

import ast
import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from code_blocks import (
    Block,
    code_blocks,
    flags,
    library_commands,
    module_commands,
)
from docs_hub import docs_hub
from hub_server import TOKEN
from places import DATA, REPOSITORY, SUPPORT
from typer.main import get_command

from hf_token_compress.cli import app
from hf_token_compress.data.scenes import make_scene

DOCUMENTS = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "hf_token_compress/tiny").glob("*/README.md"),
        REPOSITORY / "notebooks/README.md",
        REPOSITORY / "examples/README.md",
    ]
)
DIARIES = sorted((REPOSITORY / "lab").rglob("*.md"))
"""The laboratory's: their commands take hours, and must still be right."""
LANGUAGES = {"", "bash", "python", "text", "bibtex", "json"}

COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def runs(block: Block) -> bool:
    return block.reason is None and block.language in ("python", "bash")


RUNNING = [path for path in DOCUMENTS if any(map(runs, code_blocks(path)))]

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
each_page = pytest.mark.parametrize("path", [*DOCUMENTS, *DIARIES], ids=name_of)


def files_of(path: Path) -> dict[str, str]:
    """Files that the blocks of a document name and do not make, as hexadecimal text."""
    content = io.BytesIO()
    make_scene(6, rows=4, columns=4, split="test").image.convert("RGB").save(content, "JPEG")
    asked = [
        {"image": "receipt.jpg", "question": question, "answer": answer}
        for question, answer in (
            ("What is left of the coffee?", "bell"),
            ("What is at row 2, column 1?", "castle"),
            ("Is there a castle?", "yes"),
            ("Is there a coffee?", "yes"),
        )
    ]
    files = {
        "receipt.jpg": content.getvalue(),
        "token_compression_demo/images/07-relation.png": content.getvalue(),
        "questions.jsonl": "".join(json.dumps(row) + "\n" for row in asked).encode(),
        "clip.mp4": (DATA / "cockatoo.mp4").read_bytes(),
    }
    text = path.read_text(encoding="utf-8")
    return {name: file.hex() for name, file in files.items() if name in text}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """One process for all documents: most of the time is that of importing Transformers."""
    hidden = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    with docs_hub() as hub:
        process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "docs_session.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **environment,
                "HF_ENDPOINT": hub.address,
                "HF_HOME": str(tmp_path_factory.mktemp("cache")),
                "HF_TOKEN": TOKEN,
                "COLUMNS": "200",
            },
        )
        yield process
        process.communicate()


@pytest.mark.parametrize("path", RUNNING, ids=name_of)
def test_the_blocks_of_a_document_run(
    path: Path, session: subprocess.Popen[str], tmp_path: Path
) -> None:
    blocks = [block for block in code_blocks(path) if runs(block)]
    request = {
        "name": name_of(path),
        "folder": str(tmp_path / "work"),
        "files": files_of(path),
        "blocks": [(block.line, block.language, block.text) for block in blocks],
    }
    assert session.poll() is None, "The process that runs the blocks ended."
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(json.dumps(request) + "\n")
    session.stdin.flush()
    answer = session.stdout.readline()
    assert answer, "The process that runs the blocks ended."
    failure = json.loads(answer)
    assert failure is None, failure


@each_document
def test_a_block_that_is_not_run_says_why(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    markers = sum("<!-- not run" in line for line in lines)
    marked = [block for block in code_blocks(path) if block.reason is not None]
    assert len(marked) == markers, "A marker stands right above the fence of the block."
    for block in marked:
        assert block.language in ("bash", "python"), block.line
        assert len(block.reason or "") > 5, block.line


@each_page
def test_every_block_has_a_known_language(path: Path) -> None:
    assert {block.language for block in code_blocks(path)} <= LANGUAGES


@each_page
def test_python_blocks_can_be_parsed(path: Path) -> None:
    for block in code_blocks(path):
        if block.language == "python":
            ast.parse(block.text, f"{name_of(path)}:{block.line}")


@each_page
def test_commands_of_the_library_exist_with_their_options(path: Path) -> None:
    for arguments in commands_in(path):
        name, *options = arguments
        assert name in COMMANDS, name
        parameters = COMMANDS[name].params
        known = {option for parameter in parameters for option in parameter.opts}
        known |= {option for parameter in parameters for option in parameter.secondary_opts}
        assert set(flags(options)) <= known | {"--help"}, arguments
        if any(word in ("$@", "$clips") for word in options):
            continue  # the rest of the options is put in by the shell
        for parameter in parameters:
            if parameter.required and parameter.opts[0].startswith("--"):
                assert set(parameter.opts) & set(flags(options)), arguments


def commands_in(path: Path) -> Iterator[list[str]]:
    text = path.read_text(encoding="utf-8")
    for block in code_blocks(path):
        if block.language == "bash":
            yield from library_commands(block.text)
    # Commands within sentences and tables.
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "…" not in code and " " in code.partition("hf-token-compress ")[2]:
            yield from library_commands(code)


@each_page
def test_programs_of_the_checkout_exist_with_their_options(path: Path) -> None:
    for block in code_blocks(path):
        for program, arguments in module_commands(block.text if block.language == "bash" else ""):
            source = program_source(program)
            if source is None:
                continue
            for flag in flags(arguments):
                parameter = flag.removeprefix("--").replace("-", "_")
                written = rf'"{flag}"|^ +{parameter}: '  # argparse's, or a parameter for typer
                assert re.search(written, source, re.MULTILINE), (block.line, program, flag)


@functools.cache
def program_source(program: str) -> str | None:
    """The source of a program of this checkout; None for other people's modules.

    Options may be declared in a package's other modules, or shared by the laboratory's commands.
    """
    if program.endswith(".py"):
        return (REPOSITORY / program).read_text(encoding="utf-8")
    if program.partition(".")[0] != "lab":
        return None
    path = REPOSITORY / program.replace(".", "/")
    module = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    source = module.read_text(encoding="utf-8")
    shared = list((REPOSITORY / "lab").rglob("arguments.py"))
    if path.is_dir() or "add_argument" not in source:
        shared += module.parent.glob("*.py")
    return source + "".join(file.read_text(encoding="utf-8") for file in shared)
