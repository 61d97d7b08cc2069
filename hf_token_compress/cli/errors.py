"""Expected errors become one sentence and an exit code, not a traceback."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, ParamSpec

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
        except BrokenPipeError:
            raise  # whoever read stdout has seen enough; typer ends without a word
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


class _Stop(KeyboardInterrupt):
    """A signal, which no `except Exception` holds up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def stoppable(kept: Callable[[], str], *, shown: bool = True) -> Iterator[None]:
    """Around long work: SIGINT and SIGTERM stop it in good order and say what is left of it.

    Args:
        kept: Called after the stop; returns a sentence that says what was kept and how to go on.
        shown: False on processes that leave it to another to say so.

    Raises:
        typer.Exit: The work was stopped; 130 after SIGINT, 143 after SIGTERM.
    """
    try:
        with _signals_raise():
            yield
    except KeyboardInterrupt as stop:
        if shown:
            typer.echo(f"Stopped. {kept()}", err=True)
        raise typer.Exit(getattr(stop, "exit_code", 128 + signal.SIGINT)) from None


@contextmanager
def _signals_raise() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Stop(number)

    # Only the main thread may set handlers, and signals that are ignored stay so, as with nohup.
    changed = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                changed[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, before in changed.items():
            signal.signal(number, before)
