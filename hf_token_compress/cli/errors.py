"""Expected errors become one sentence and an exit code, not a traceback."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec

import typer

from ..hub import first_line

DEBUG_VARIABLE = "HF_TOKEN_COMPRESS_DEBUG"

Parameters = ParamSpec("Parameters")


class CommandError(Exception):
    """An error that the user can fix.

    Args:
        message: One sentence that says what is wrong and what to do.
        exit_code: 2 where the arguments are wrong, else 1.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


# The library refuses wrong arguments with these.
_WRONG_ARGUMENTS = (TypeError, ValueError)
# Anything else is a bug and needs its traceback.
_EXPECTED = (CommandError, ImportError, NotImplementedError, OSError, *_WRONG_ARGUMENTS)


def one_sentence_errors(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Decorator of a command: expected errors become one line on stderr and an exit code.

    The exit code is 2 for wrong arguments, else 1. With the environment variable
    `HF_TOKEN_COMPRESS_DEBUG` set, errors stay exceptions.
    """

    @functools.wraps(command)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except _EXPECTED as error:
            if os.environ.get(DEBUG_VARIABLE):
                raise
            typer.echo(f"Error: {first_line(error)}", err=True)
            default = 2 if isinstance(error, _WRONG_ARGUMENTS) else 1
            raise typer.Exit(getattr(error, "exit_code", default)) from None

    return guarded
