"""Classes by name: built-in ones, loaded on first use, and those that users register."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from .checks import refuse_unknown

Base = TypeVar("Base")
Decorated = TypeVar("Decorated", bound=type)


class Registry(Generic[Base]):
    """Subclasses of one base class by name.

    Args:
        noun: What error messages call a class, such as "scorer".
        base: "module:class" of the base class, imported on first use.
        built_in: "module:class" of each built-in class by its name.
    """

    def __init__(self, noun: str, base: str, built_in: Mapping[str, str]) -> None:
        self.noun = noun
        self._base = base
        self._built_in = dict(built_in)
        self.registered: dict[str, type[Base]] = {}

    def add_built_in(self, name: str, location: str) -> None:
        """Add a built-in class as "module:class"; its module is imported on first use."""
        self._built_in[name] = location

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted({*self._built_in, *self.registered}))

    def register(self, name: str, cls: type[Base]) -> None:
        """Make a user's class available under `name`.

        Raises:
            TypeError: `cls` is not a subclass of the base class.
            ValueError: The name is taken.
        """
        base = _load(self._base)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise TypeError(
                f"register_{self.noun}({name!r}) takes a subclass of {base.__name__}, not {cls!r}."
            )
        # Running a notebook cell again defines the same class again: let it replace itself.
        known = self.registered.get(name, cls)
        same = (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
        if name in self._built_in or not same:
            raise ValueError(f"A {self.noun} named {name!r} exists already: choose another name.")
        self.registered[name] = cls

    def decorator(self, name: str) -> Callable[[Decorated], Decorated]:
        """Class decorator that registers under `name`; errors as for `register`."""

        def decorate(cls: Decorated) -> Decorated:
            self.register(name, cls)
            return cls

        return decorate

    def find(self, name: str) -> type[Base] | None:
        """The class of that name; None if there is none."""
        if name in self.registered:
            return self.registered[name]
        location = self._built_in.get(name)
        return None if location is None else _load(location)

    def build(self, name: str, options: Mapping[str, Any]) -> Base:
        """Make an instance of the class of that name.

        Raises:
            ValueError: There is no such class, it does not take one of the options, or lacks one.
        """
        cls: Any = self.find(name)
        if cls is None:
            package = self._base.partition(":")[0].rpartition(".")[0]
            raise ValueError(
                f"There is no {self.noun} named {name!r}: choose one of "
                f"{', '.join(self.names())}, or add your own with {package}.register_{self.noun}."
            )
        accepted = inspect.signature(cls).parameters
        refuse_unknown(f"{self.noun.capitalize()} {name!r}", "option", options, accepted)
        missing = [
            name
            for name, item in accepted.items()
            if item.default is item.empty
            and item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
            and name not in options
        ]
        if missing:
            raise ValueError(
                f"{self.noun.capitalize()} {name!r} needs the option {' and '.join(missing)}: pass "
                "it among its options."
            )
        instance: Base = cls(**options)
        return instance


def _load(location: str) -> Any:
    module, name = location.split(":")
    return getattr(import_module(module), name)
