"""Options are declared once, in dataclasses, and every verb reads them from there."""

from __future__ import annotations

import ast
import inspect
import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from errors import one_sentence
from typer.testing import CliRunner

import hf_token_compress.cli
from hf_token_compress import TokenCompressionConfig
from hf_token_compress.cli import app
from hf_token_compress.cli.env import env
from hf_token_compress.cli.errors import one_sentence_errors
from hf_token_compress.cli.options import takes
from hf_token_compress.options import check_options, documented, options_of
from hf_token_compress.training.options import CollectOptions, TrainOptions

pytestmark = pytest.mark.core

FOLDER = Path(hf_token_compress.cli.__file__).parent
LONGEST = 60


@documented
@dataclass(frozen=True)
class Cake:
    """A cake.

    Raises:
        TypeError: It cannot be baked.
    """

    name: str = field(metadata={"help": "What it is called."})
    layers: int = field(
        default=2, metadata={"help": "Its layers. More rise.", "interval": "[1, 9]"}
    )
    sugar: float | None = field(default=None, metadata={"help": "In kg.", "interval": "(0, inf)"})
    shape: Literal["round", "square"] = field(default="round", metadata={"help": "Its shape."})
    glazed: bool = field(default=True, metadata={"help": "Whether it shines."})
    toppings: tuple[str, ...] = field(default=(), metadata={"help": "What is on top."})
    photos: tuple[Path, ...] = field(default=(), metadata={"help": "Pictures of it."})
    oven_options: dict[str, Any] = field(default_factory=dict, metadata={"help": "Of the oven."})

    def __post_init__(self) -> None:
        check_options(self)


def bake(*arguments: str, **how: Any) -> Any:
    """What a command gets that takes a cake."""
    got: list[Any] = []

    @one_sentence_errors
    @takes(Cake, "cake", **how)
    def command(cake: Any, guests: int = 1) -> None:
        got.extend([cake, guests])

    program = typer.Typer()
    program.command()(command)
    outcome = CliRunner().invoke(program, list(arguments))
    return got if outcome.exit_code == 0 else outcome


def test_what_is_not_given_has_the_default() -> None:
    assert bake("--name", "a") == [Cake("a"), 1]


def test_every_kind_of_field_is_an_option() -> None:
    cake, guests = bake(
        *("--name", "b", "--layers", "3", "--sugar", "0.5", "--shape", "square", "--no-glazed"),
        *("--topping", "nuts,plums", "--topping", "cream", "--photo", "a,b.png"),
        *("--oven-option", "heat=180", "--oven-option", "fan=true", "--guests", "4"),
    )
    assert cake == Cake(
        "b", 3, 0.5, "square", False, ("nuts", "plums", "cream"), (Path("a,b.png"),),
        {"heat": 180, "fan": True},
    )  # fmt: skip
    assert guests == 4


def test_a_comma_alone_gives_no_value() -> None:
    assert bake("--name", "b", "--topping", ",") == [Cake("b"), 1]


def test_a_command_may_require_a_field_that_has_a_default() -> None:
    missing = bake("--name", "b", required=("layers",))
    assert missing.exit_code == 2
    assert "--layers" in missing.stderr
    assert bake("--name", "b", "--layers", "3", required=("layers",)) == [Cake("b", 3), 1]


def test_an_error_of_the_work_exits_with_1() -> None:
    @one_sentence_errors
    @takes(Cake, "cake")
    def command(cake: Any) -> None:
        raise ValueError(f"{cake.name} is burnt.")

    program = typer.Typer()
    program.command()(command)
    outcome = CliRunner().invoke(program, ["--name", "b"])
    assert outcome.exit_code == 1
    assert outcome.stderr == "Error: b is burnt.\n"


def test_a_command_may_take_some_fields_and_only_what_was_given() -> None:
    assert bake("--layers", "2", only=("layers", "sugar"), built=False) == [{"layers": 2}, 1]
    assert bake("--name", "c", leave_out=("layers",)) == [Cake("c"), 1]
    assert bake("--name", "c", "--layers", "3", leave_out=("layers",)).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--layers", "0"), "layers"),
        (("--sugar", "0"), "sugar"),
        (("--shape", "heart"), "shape"),
        (("--oven-option", "heat"), "KEY=VALUE"),
    ],
)
def test_a_wrong_value_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], word: str
) -> None:
    outcome = bake("--name", "d", *arguments)
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("Error: ")
    assert word in line


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"layers": 10}, ValueError),
        ({"layers": 2.0}, TypeError),
        ({"layers": None}, TypeError),
        ({"sugar": float("inf")}, ValueError),
        ({"sugar": "much"}, TypeError),
        ({"shape": "heart"}, ValueError),
        ({"shape": None}, ValueError),
        ({"glazed": 1}, TypeError),
        ({"oven_options": ["hot"]}, TypeError),
    ],
)
def test_a_dataclass_checks_its_fields(values: dict[str, Any], kind: type[Exception]) -> None:
    with one_sentence(kind, *values):
        Cake("e", **values)


def test_the_docstring_lists_the_options_once() -> None:
    lines = inspect.cleandoc(Cake.__doc__ or "").splitlines()
    assert lines[:3] == ["A cake.", "", "Args:"]
    assert "    layers: Its layers. More rise. (in [1, 9])" in lines
    assert lines[-2] == "Raises:"


@pytest.mark.parametrize(
    ("verb", "options_class"),
    [
        ("run", TokenCompressionConfig),
        ("collect", CollectOptions),
        ("train", TrainOptions),
    ],
)
def test_a_verb_has_every_field_of_its_dataclass(verb: str, options_class: type[Any]) -> None:
    assert len(options_of(options_class)) == len(fields(options_class))
    outcome = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"})
    shown = set(re.findall(r"--[a-z0-9-]+", outcome.stdout))
    for item in options_of(options_class):
        flag = f"--{item.name.replace('_', '-')}"
        assert flag in shown or flag.removesuffix("s") in shown
        assert item.help.split()[0] in outcome.stdout


def test_no_function_of_the_command_line_is_long() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
                assert (node.end_lineno or 0) - first < LONGEST, f"{path.name}: {node.name}"


def test_env_names_versions_and_works_without_optional_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = inspect.getmodule(inspect.unwrap(env))
    monkeypatch.setattr(module, "_PACKAGES", ("torch", "a-package-that-nobody-has"))
    found = json.loads(CliRunner().invoke(app, ["env", "--json"]).stdout)
    assert found["hf_token_compress"] == hf_token_compress.__version__
    assert found["torch"]
    assert found["a-package-that-nobody-has"] is None
    assert isinstance(found["accelerators"], list)
    text = CliRunner().invoke(app, ["env"]).stdout
    assert "a-package-that-nobody-has: not installed" in text
