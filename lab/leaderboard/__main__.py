"""Measure all scorers on all small models, and make the table of docs/leaderboard.md.

    python -m lab.leaderboard run --output lab/leaderboard/results --testbed FOLDER
    python -m lab.leaderboard table --answers lab/leaderboard/results

A stopped run is continued by the same command. The table is made from the JSON file of the
repository; with --answers, that file is first written from the answers of a run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ..arguments import add_threads, comma_list, make_parser, positive, set_threads
from .page import write_page
from .rows import ROWS
from .running import Run, run_all
from .subjects import SUBJECTS, TESTBED, Stream, Subject

_HERE = Path(__file__).parent
_PAGE = _HERE.parents[1] / "docs/leaderboard.md"
RESULTS = _HERE / "results"


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("lab.leaderboard", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="ask what has no answer yet")
    run.add_argument("--output", type=Path, default=RESULTS, help="folder of the answers")
    run.add_argument("--model", type=comma_list(str), help="only these models")
    run.add_argument("--source", type=comma_list(str), help="only these sources of questions")
    run.add_argument("--limit-seconds", type=float, help="stop after this time")
    run.add_argument("--testbed", default=TESTBED, help="folder of the testbed")
    run.add_argument("--testbed-mapper", help="folder of the testbed's mapper")
    run.add_argument("--batch-size", type=positive, default=64, help="questions per batch")
    add_threads(run)
    table = commands.add_parser("table", help="write the page")
    table.add_argument("--answers", type=Path, help="folder of a run, to write the JSON from")
    table.add_argument("--results", type=Path, help="that JSON file")
    table.add_argument("--page", type=Path, default=_PAGE, help="Markdown page with markers")
    table.add_argument(
        "--default",
        choices=[row.name for row in ROWS],
        default=ROWS[0].name,
        help="row that all others are compared with",
    )
    for own in (run, table):
        own.add_argument(
            "--stream", choices=get_args(Stream), default="reporting", help="which questions"
        )
    return parser


def _subjects(options: argparse.Namespace) -> tuple[Subject, ...]:
    found = tuple(
        own
        for own in SUBJECTS
        if (options.model is None or own.model in options.model)
        and (options.source is None or own.source in options.source)
    )
    if not found:
        names = ", ".join(own.name for own in SUBJECTS)
        raise ValueError(f"No model has these questions: choose from {names}.")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or write the page."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            set_threads(options)
            _run(options)
        else:
            file = options.results or RESULTS / f"{options.stream}.json"
            write_page(options.page, file, options.default, options.answers, options.stream)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


def _run(options: argparse.Namespace) -> None:
    run = Run(
        options.output,
        options.stream,
        _subjects(options),
        testbed=options.testbed,
        testbed_mapper=options.testbed_mapper,
        batch_size=options.batch_size,
    )
    progress = run_all(run, options.limit_seconds)
    for name, seconds in progress.seconds_per_answer().items():
        print(f"{name}: {1000 * seconds:.0f} ms per answer")
    print(f"{progress.hours_left():.1f} h left")


if __name__ == "__main__":
    main()
