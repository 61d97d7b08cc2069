"""Classes found by name: built-in ones that load on first use, and those that users register."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def check_registration(
    cls: object,
    name: str,
    *,
    base: type,
    built_in: Mapping[str, str],
    registered: Mapping[str, type],
) -> None:
    """Raise unless a class may be registered under that name.

    Args:
        cls: The class.
        name: The name.
        base: What it must be a subclass of.
        built_in: Names that are taken.
        registered: What users registered before; a class may be defined anew.

    Raises:
        TypeError: `cls` is not a subclass of `base`.
        ValueError: The name is taken.
    """
    noun = base.__name__.lower()
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise TypeError(
            f"register_{noun}({name!r}) takes a subclass of {base.__name__}, not {cls!r}."
        )
    known = registered.get(name)
    # A notebook cell that is run again defines the same class anew: let it replace itself.
    redefined = known is not None and (known.__module__, known.__qualname__) == (
        cls.__module__,
        cls.__qualname__,
    )
    if name in built_in or (known is not None and not redefined):
        raise ValueError(f"A {noun} named {name!r} exists already: choose another name.")


def build_named(
    name: str,
    options: Mapping[str, Any],
    *,
    base: type,
    built_in: Mapping[str, str],
    registered: Mapping[str, type],
    package: str,
) -> Any:
    """Make an instance of the class of that name.

    Args:
        name: The name.
        options: Its keyword arguments.
        base: What it is a subclass of.
        built_in: For each name "module:class", the module relative to `package`.
        registered: What users registered.
        package: Package of the registry.

    Raises:
        ValueError: There is no such class, or it does not take one of the options.
    """
    noun = base.__name__.lower()
    found: Any = registered.get(name)
    if found is None and name in built_in:
        module, class_name = built_in[name].split(":")
        found = getattr(import_module(module, package), class_name)
    if found is None:
        raise ValueError(
            f"There is no {noun} named {name!r}: choose one of "
            f"{', '.join(sorted({*built_in, *registered}))}, or add your own with "
            f"{base.__module__.rpartition('.')[0]}.register_{noun}."
        )
    accepted = set(inspect.signature(found).parameters)
    unknown = sorted(set(options) - accepted)
    if unknown:
        raise ValueError(
            f"{noun.capitalize()} {name!r} does not take the option(s) {', '.join(unknown)}: it "
            f"takes {', '.join(sorted(accepted)) or 'none'}."
        )
    return found(**options)
