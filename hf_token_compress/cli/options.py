"""Command line options that are made from the fields of dataclasses, and those of several verbs."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import Option, options_of
from .errors import CommandError, wrong_arguments

OutputFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder to write to.", metavar="FOLDER")
]
OutputFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write the JSON object to.", metavar="FILE"),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        help="Kinds of questions, separated by commas. By default all. May be repeated.",
        metavar="KINDS",
    ),
]
MarkdownFlag = Annotated[
    bool, typer.Option("--markdown", help="Print Markdown tables and nothing else.")
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else.")
]

_NUMBERS = (int, float)

FRAMES = {
    "help": "Frames to take from each video file or folder. Some processors round the number.",
    "interval": "[1, inf)",
}
"""Of the option --frames."""


def takes(
    options_class: type[Any],
    parameter: str,
    *,
    panel: str | None = None,
    only: Collection[str] | None = None,
    leave_out: Collection[str] = (),
    required: Collection[str] = (),
    built: bool = True,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command: its options include the fields of a dataclass.

    Args:
        options_class: The dataclass, whose fields carry a help text (`hf_token_compress.options`).
        parameter: Parameter of the command that gets the instance.
        panel: Heading of the options in the help.
        only: Fields that become options; by default all.
        leave_out: Fields that do not.
        required: Fields that must be given though they have a default.
        built: Whether the command gets an instance; otherwise a dict of the fields that were given.
    """
    cls: Any = options_class
    chosen = [
        replace(item, required=True, default=None) if item.name in required else item
        for item in options_of(cls)
        if (only is None or item.name in only) and item.name not in leave_out
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def filled(**values: Any) -> None:
            given = {}
            with wrong_arguments():
                for item in chosen:
                    value = _read(item, values.pop(item.name))
                    if value is not None:
                        item.check(value)
                        given[item.name] = value
                values[parameter] = options_class(**given) if built else given
            command(**values)

        # The options stand where the command has the parameter.
        parameters = []
        for own in inspect.signature(command, eval_str=True).parameters.values():
            if own.name == parameter:
                parameters += [_parameter(item, panel) for item in chosen]
            else:
                parameters.append(own.replace(kind=own.KEYWORD_ONLY))
        filled.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        # Typer reads both.
        filled.__annotations__ = {item.name: item.annotation for item in parameters}
        return filled

    return decorate


def _parameter(item: Option, panel: str | None) -> inspect.Parameter:
    """The typer parameter of an option; its value is None where it is not given."""
    flag, text = _flag(item), item.help
    names = [f"{flag}/--no-{flag[2:]}" if item.kind is bool else flag]
    annotation: Any = item.kind
    if item.kind in (dict, tuple):
        annotation = list[Path] if item.element is Path else list[str]
        text += " May be repeated."
    elif item.kind in _NUMBERS:
        annotation = str  # `_read` says what a number must be
    if default := _default_text(item):
        text += f" [default: {default}]"
    return inspect.Parameter(
        item.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=annotation if item.required else annotation | None,
        default=typer.Option(
            ... if item.required else None,
            *names,
            help=text,
            metavar=_metavar(item),
            rich_help_panel=panel,
        ),
    )


def _flag(item: Option) -> str:
    # Several are given one by one (scorer_options by --scorer-option), but numbers in a list.
    one_by_one = item.kind is dict or (item.kind is tuple and item.element not in _NUMBERS)
    name = item.name.removesuffix("s") if one_by_one else item.name
    return f"--{name.replace('_', '-')}"


def _metavar(item: Option) -> str | None:
    if item.metavar is not None:
        return item.metavar
    if item.choices:
        return f"[{'|'.join(item.choices)}]"
    if item.kind in _NUMBERS:
        return f"<{item.kind.__name__}>"
    return "KEY=VALUE" if item.kind is dict else None


def _default_text(item: Option) -> str:
    if item.kind is bool:
        return _flag(item)[2:] if item.default else f"no-{_flag(item)[2:]}"
    if item.kind is tuple:
        return ", ".join(map(str, item.default or ()))
    return "" if item.default in (None, {}) else str(item.default)


def _read(item: Option, value: Any) -> Any:
    """The value of a field; None where it was not given."""
    if item.kind is dict:
        return _key_values(value, _flag(item)) if value else None
    if item.kind is tuple and value:
        split = item.element in (str, *_NUMBERS)  # the name of a file may have a comma
        texts: tuple[Any, ...] = listed(value) if split else tuple(value)
        if item.element in _NUMBERS:
            texts = tuple(_number(item, text) for text in texts)
        return texts or None  # a comma alone gives no value
    if item.kind in _NUMBERS and value is not None:
        return _number(item, value)
    return None if value == [] else value


def _number(item: Option, text: str) -> float:
    try:
        number: float = item.element(text)
    except ValueError:
        wanted = "whole number" if item.element is int else "number"
        wanted = f"{wanted}s" if item.kind is tuple else f"a {wanted}"
        message = f"{_flag(item)} takes {wanted}, not {text!r}."
        raise CommandError(message, exit_code=2) from None
    return number


def _key_values(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """`["seed=1", "name=a"]` → `{"seed": 1, "name": "a"}`: JSON values, or else plain text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise CommandError(f"{option} takes KEY=VALUE, not {pair!r}.", exit_code=2)
        if key in options:
            raise CommandError(f"{option} names {key!r} twice: leave one out.", exit_code=2)
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def listed(values: Sequence[str] | None) -> tuple[str, ...]:
    """`["a,b", "c"]` → `("a", "b", "c")`."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return tuple(part for part in parts if part)
