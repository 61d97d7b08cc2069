"""Options: dataclass fields with a help text and a range in their metadata.

An option is declared once, as `option(default, help, interval)`. Its checks, its entry in the
docstring and its command line option are made from that.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .checks import check_choice, check_number, check_type, describe_interval

Class = TypeVar("Class", bound=type)


def option(default: Any, help: str, interval: str | None = None) -> Any:
    """A field of a dataclass that is an option.

    Args:
        default: Its default.
        help: What it does. The range is appended in brackets.
        interval: Range of its numbers, such as "(0, 1]" or "[1, inf)".
    """
    metadata = {"help": help, "interval": interval}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known of one option.

    Attributes:
        kind: bool, int, float, str, Path, tuple or dict (of keyword arguments).
        element: Type of a tuple's elements; else its kind.
        choices: Strings that it, or each of a tuple's elements, may be; empty where any may.
        takes_callable: Whether a function is a value.
        interval: Range of its numbers.
        default: None too where it must be given.
        help: Its help text, with its range.
        metavar: What the command line calls its value; None for the kind's name.
    """

    name: str
    kind: type
    element: type
    choices: tuple[str, ...]
    takes_none: bool
    takes_callable: bool
    interval: str | None
    default: Any
    required: bool
    help: str
    metavar: str | None

    def check(self, value: object) -> None:
        """Raise a TypeError or ValueError unless `value` is one that the option takes."""
        if (value is None and self.takes_none) or (callable(value) and self.takes_callable):
            return
        if self.choices and self.kind is tuple:
            self._check_names(value)
        elif self.choices:
            check_choice(self.name, value, self.choices)
        elif self.kind in (int, float):
            check_number(self.name, value, self.interval, whole=self.kind is int)
        elif self.kind is tuple and self.interval is not None:
            for element in cast("tuple[object, ...]", value):
                check_number(self.name, element, self.interval)
        elif self.kind is dict:
            check_type(self.name, value, Mapping)
        elif self.kind in (bool, str):
            check_type(self.name, value, self.kind)

    def _check_names(self, value: object) -> None:
        if not isinstance(value, tuple | list):
            raise TypeError(f"{self.name} must be a list of names, not {type(value).__name__}.")
        if not value:
            raise ValueError(f"{self.name} must name at least one of {', '.join(self.choices)}.")
        for name in value:
            check_choice(f"Each of {self.name}", name, self.choices)


@cache
def options_of(cls: type[Any]) -> tuple[Option, ...]:
    """All fields of a dataclass that have a help text."""
    hints = get_type_hints(cls)
    return tuple(
        _read(item, hints[item.name]) for item in dataclasses.fields(cls) if "help" in item.metadata
    )


def check_options(instance: object) -> None:
    """Raise a TypeError or ValueError unless every option of a dataclass takes its value."""
    cls: Any = type(instance)
    for item in options_of(cls):
        item.check(getattr(instance, item.name))


def documented(cls: Class) -> Class:
    """Class decorator that lists the options in the docstring."""
    entries = [
        textwrap.fill(
            f"{item.name}: {item.help}",
            width=96,
            initial_indent="    ",
            subsequent_indent="        ",
        )
        for item in options_of(cls)
    ]
    summary, raises, errors = inspect.cleandoc(cls.__doc__ or "").partition("\n\nRaises:")
    cls.__doc__ = "\n".join([summary, "", "Args:", *entries]) + raises + errors + "\n"
    return cls


def _read(item: dataclasses.Field[Any], hint: Any) -> Option:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind: Any = next(part for part in parts if part is not NoneType)
    element, kind = next(iter(get_args(kind)), kind), get_origin(kind) or kind
    literals = [part for part in (*parts, element) if get_origin(part) is Literal]
    choices = [name for literal in literals for name in get_args(literal)]
    if choices:
        element, kind = str, tuple if kind is tuple else str
    text, interval = item.metadata["help"], item.metadata.get("interval")
    if interval is not None:
        text += f" ({describe_interval(interval)})"
    default = item.default
    if default is dataclasses.MISSING:
        default = None if item.default_factory is dataclasses.MISSING else item.default_factory()
    return Option(
        name=item.name,
        kind=dict if isinstance(kind, type) and issubclass(kind, Mapping) else kind,
        element=element,
        choices=tuple(choices),
        takes_none=NoneType in parts,
        takes_callable=any(get_origin(part) is Callable for part in parts),
        interval=interval,
        default=default,
        required=item.default is item.default_factory is dataclasses.MISSING,
        help=text,
        metavar=item.metadata.get("metavar"),
    )
