"""What a user can put right is told in one sentence, not in a traceback."""

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
    """Something that the user can put right.

    Args:
        message: One sentence that says what is wrong and what to do.
        exit_code: 2 where the arguments are wrong, else 1.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


# What the library and Transformers raise for wrong input; anything else is a bug, whose traceback
# is wanted.
_EXPECTED = (CommandError, ImportError, NotImplementedError, OSError, TypeError, ValueError)


def one_sentence_errors(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Decorator of a command: expected errors become one line on stderr and an exit code.

    With the environment variable `HF_TOKEN_COMPRESS_DEBUG` set they stay exceptions.
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
    """What the library refuses inside the `with` block is the fault of the command's arguments.

    Raises:
        CommandError: The library raised TypeError or ValueError.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise CommandError(first_line(error), exit_code=2) from error
