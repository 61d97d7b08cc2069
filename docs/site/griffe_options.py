"""Show options in the API reference as `hf_token_compress.options.documented` does in Python.

Griffe reads sources. The text of an option stands in its field, `option(default, help, interval)`;
here it becomes an entry of the class's docstring, and the default that of the field.
"""

from __future__ import annotations

import ast
from typing import Any

import griffe

_OPTION = "hf_token_compress.options.option"


class Options(griffe.Extension):
    """Lists the options of a class in its docstring."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Read the calls that make fields."""
        entries = []
        for name, field in cls.attributes.items():
            call = field.value
            if isinstance(call, griffe.ExprCall) and call.canonical_path == _OPTION:
                field.value, help_text, *interval = call.arguments
                text = _string(help_text, field)
                text += f" In {_string(interval[0], field)}." if interval else ""
                entries.append(f"    {name}: {text}")
        if entries and cls.docstring:
            summary, raises, errors = cls.docstring.value.partition("\n\nRaises:")
            cls.docstring.value = "\n".join([summary, "", "Args:", *entries]) + raises + errors


def _string(value: str | griffe.Expr, field: griffe.Attribute) -> str:
    if isinstance(value, griffe.ExprName):  # a constant of the module
        value = field.module[value.name].value
    try:
        return ast.literal_eval(str(value))
    except ValueError:  # it is computed
        return str(value)
