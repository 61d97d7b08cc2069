"""Expected errors become one sentence and an exit code, not a traceback."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


# Anything else is a bug and needs its traceback.
_EXPECTED = (CommandError, ImportError, NotImplementedError, OSError, TypeError, ValueError)


def one_sentence_errors(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Decorator of a command: expected errors become one line on stderr and an exit code.

    The exit code is 2 for wrong arguments (`wrong_arguments`), else 1. With the environment
    variable `HF_TOKEN_COMPRESS_DEBUG` set, errors stay exceptions.
    """

    @functools.wraps(command)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except _EXPECTED as error:
            if os.environ.get(DEBUG_VARIABLE):
                raise
            typer.echo(f"Error: {first_line(error)}", err=True)
            raise typer.Exit(getattr(error, "exit_code", 1)) from None

    return guarded


@contextmanager
def wrong_arguments() -> Iterator[None]:
    """Around code that reads or checks arguments.

    Raises:
        CommandError: The block raised TypeError or ValueError; exit code 2.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise CommandError(first_line(error), exit_code=2) from error
