"""Where results, progress and the libraries' own messages go."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)


def results() -> Console:
    """The console on stdout: results only."""
    return Console()


def notices() -> Console:
    """The console on stderr: progress and notices."""
    return Console(stderr=True)


@contextmanager
def working(text: str, *, spinner: bool = True) -> Iterator[None]:
    """Show on stderr what is being done; libraries are quiet, and what they print goes there too.

    Args:
        text: What is being done.
        spinner: False where other progress bars are drawn in the block: one cannot share a line
            with them.
    """
    console = notices()
    with redirect_stdout(sys.stderr), _quiet_libraries(progress_bars=not spinner):
        if spinner:
            with console.status(text):
                yield
        else:
            console.print(text)
            yield


@contextmanager
def counting(text: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show on stderr how much of a known amount is done; without a terminal, only at the end.

    Args:
        text: What is being done.
        total: The amount.
        shown: False on processes that leave it to another to show.

    Yields:
        A function to call with what was done since the last call.
    """
    columns = (
        SpinnerColumn(),
        TextColumn(text),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = notices()
    hidden = not (shown and console.is_terminal)
    start = time.monotonic()
    bar = Progress(*columns, console=console, transient=True, disable=hidden)
    with _quiet_libraries(progress_bars=False), bar as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)
    if shown:
        done, seconds = progress.tasks[0].completed, time.monotonic() - start
        console.print(f"{text}: {done:.0f} of {total} in {seconds:.1f} s", style="dim")


@contextmanager
def _quiet_libraries(*, progress_bars: bool) -> Iterator[None]:
    """Silence what Transformers and the Hub client log below errors, such as retries."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    bars_before = transformers_logging.is_progress_bar_enabled()
    levels = [(log, log.get_verbosity()) for log in (hub_logging, transformers_logging)]
    for log, _ in levels:
        log.set_verbosity_error()
    if not progress_bars:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for log, level in levels:
            log.set_verbosity(level)
        if bars_before:
            transformers_logging.enable_progress_bar()
