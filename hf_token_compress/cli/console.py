"""Where results, progress and the libraries' own messages go."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
)
from rich.text import Text

_MINUTE = 60
_LONGEST_SILENCE = 30
_MOST_NAMED = 5


def results() -> Console:
    """The console on stdout: results only. Square brackets in names and data are no markup."""
    return Console(markup=False)


def notices() -> Console:
    """The console on stderr: progress and notices. Square brackets are no markup here either."""
    return Console(stderr=True, markup=False)


def name_samples(heading: str, samples: Sequence[tuple[str, str]]) -> None:
    """Name on stderr the first of some samples: where each is, and what is wrong with it."""
    named = "; ".join(f"{place}, {reason}" for place, reason in samples[:_MOST_NAMED])
    more = "; …" if len(samples) > _MOST_NAMED else ""
    notices().print(Text(f"{heading}: {named}{more}", style="yellow"), soft_wrap=True)


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


class Counter:
    """How much of a known amount is done, and how long the rest takes at the pace so far.

    Args:
        text: What is being done.
        total: The amount.
        clock: Gives seconds.
    """

    def __init__(self, text: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.text, self.total, self.done = text, total, 0
        self._clock, self._start, self._earlier = clock, clock(), 0
        self._reported, self._last_line = 0, self._start

    def __call__(self, done: int) -> None:
        """Count what was done since the last call."""
        self.done += done

    def earlier(self, done: int) -> None:
        """Count what an earlier run has done, which took no time now."""
        self._earlier += done
        self(done)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def new(self) -> int:
        """What was done since the start, without what an earlier run has done."""
        return self.done - self._earlier

    def time_for(self, amount: int) -> str:
        """How long an amount takes at the pace so far, in words, once something was done."""
        return _duration(self.seconds / self.new * amount)

    @property
    def left(self) -> str:
        """An estimate of the time left, in words; "" before anything was done and at the end."""
        rest = self.total - self.done
        if self.new < 1 or rest < 1:
            return ""
        return f"about {self.time_for(rest)} left"

    def next_line(self) -> str | None:
        """A line for a log at every tenth of the work, and after half a minute without one."""
        tenth, now = 10 * self.done // max(1, self.total), self._clock()
        late = now - self._last_line >= _LONGEST_SILENCE
        if self.done >= self.total or not (late or tenth > self._reported):
            return None
        self._reported, self._last_line = tenth, now
        return ", ".join(filter(None, (f"{self.text}: {self.done} of {self.total}", self.left)))


class _ShownCounter(Counter):
    """A counter that shows itself whenever it counts."""

    def __init__(self, text: str, total: int, show: Callable[[Counter], None]) -> None:
        super().__init__(text, total)
        self._show = show

    def __call__(self, done: int) -> None:
        super().__call__(done)
        self._show(self)


@contextmanager
def counting(text: str, total: int, *, shown: bool = True) -> Iterator[Counter]:
    """Show on stderr how much of a known amount is done: as a bar, or lines without a terminal.

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
        TextColumn("{task.fields[left]}"),
    )
    console = notices()
    hidden = not (shown and console.is_terminal)
    bar = Progress(*columns, console=console, transient=True, disable=hidden)
    with _quiet_libraries(progress_bars=False), bar as progress:
        task = progress.add_task("", total=total, left="")

        def show(counter: Counter) -> None:
            progress.update(task, completed=counter.done, left=counter.left)
            if shown and hidden and (line := counter.next_line()):
                console.print(line, style="dim", soft_wrap=True)

        counter = _ShownCounter(text, total, show)
        yield counter
    if shown:
        line = f"{text}: {counter.done} of {total} in {counter.seconds:.1f} s"
        console.print(line, style="dim", soft_wrap=True)


def with_estimate(counter: Counter, total: int, *, after: int) -> Callable[[int], None]:
    """Count, and say once on stderr how long all samples take.

    Args:
        counter: What counts.
        total: All samples, of which the counter may count a share: other processes do the others.
        after: How many new samples the estimate needs.
    """
    told = False

    def count(done: int) -> None:
        nonlocal told
        counter(done)
        rest = counter.total - counter.done
        if told or rest < 1 or counter.new < after:
            return
        told = True
        notices().print(
            f"At this pace all {total} samples take about {counter.time_for(counter.total)}, and "
            f"the rest about {counter.time_for(rest)}.",
            soft_wrap=True,
        )

    return count


def _duration(seconds: float) -> str:
    """Seconds as "40 s", "12 min" or "3 h 5 min"."""
    if seconds < _MINUTE:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / _MINUTE)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


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
