"""Run the cases, each in a process of its own, and compare with what is recorded.

    python -m lab.cases
    python -m lab.cases caches/ threads/two_requests --time-limit 120

Exits with 0 if every case ends as recorded in `expected.json`. A case that is skipped, for instance
for a missing package, counts as recorded.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .outcome import EXIT_STATUS, RIGHT, SKIPPED, WRONG

FOLDER = Path(__file__).parent
EXPECTED = FOLDER / "expected.json"
CHECKOUT = FOLDER.parents[1]

_MISSING = re.compile(r"No module named '(peft|accelerate)'")


@dataclass(frozen=True)
class Found:
    """How a case ended.

    Attributes:
        status: "right", "wrong", "skipped", "crashed" or "out of time".
        output: What it printed.
        seconds: How long it took.
    """

    status: str
    output: str
    seconds: float


def case_names() -> list[str]:
    """Every case, as "folder/file" without the suffix, sorted."""
    files = FOLDER.glob("*/*.py")
    return sorted(
        file.relative_to(FOLDER).with_suffix("").as_posix()
        for file in files
        if file.name != "__init__.py"
    )


def what_is_right(name: str) -> str:
    """First sentence of the case's docstring."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").splitlines()[0]


def run_case(name: str, time_limit: float) -> Found:
    """Run one case in a process of its own.

    Args:
        name: As `case_names` gives it.
        time_limit: Seconds after which the process is ended.
    """
    module = f"{__package__}.{name.replace('/', '.')}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            env=environment,
            timeout=time_limit,
        )
    except subprocess.TimeoutExpired:
        return Found("out of time", "", time.monotonic() - start)
    seconds = time.monotonic() - start
    output, _, verdict = done.stdout.rstrip().rpartition("\n")
    if EXIT_STATUS.get(verdict) == done.returncode:
        return Found(verdict, output, seconds)
    if missing := _MISSING.search(done.stderr):
        return Found(SKIPPED, missing[0], seconds)
    return Found("crashed", done.stderr[-2000:], seconds)


def as_recorded(found: Found, expected: str | None) -> bool:
    """Whether a case ended as recorded, or could not run here."""
    return found.status in (expected, SKIPPED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and print a table; 0 if every case ended as recorded."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.cases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="cases or folders, by how they begin")
    parser.add_argument("--time-limit", type=float, default=300, help="seconds for each case")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--record", action="store_true", help="write what is found as expected")
    parser.add_argument("--verbose", action="store_true", help="print what each case prints")
    options = parser.parse_args(arguments)
    names = [n for n in case_names() if not options.names or n.startswith(tuple(options.names))]
    if not names:
        parser.error(f"There is no case {options.names[0]!r}: choose from {case_names()}.")
    expected = json.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {}
    found = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run_case, name, options.time_limit): name for name in names}
        for done in as_completed(running):
            name, case = running[done], done.result()
            found[name] = case
            print(f"{name}: {case.status} after {case.seconds:.0f} s", flush=True)
            recorded = as_recorded(case, expected.get(name))
            if options.verbose or not recorded or case.status == SKIPPED:
                print(textwrap.indent(case.output, "    "), flush=True)
    found = dict(sorted(found.items()))
    _print_table(found, expected)
    if options.record:
        expected.update({n: case.status for n, case in found.items() if case.status != SKIPPED})
        EXPECTED.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    return 0 if all(as_recorded(case, expected.get(n)) for n, case in found.items()) else 1


def _print_table(found: dict[str, Found], expected: dict[str, str]) -> None:
    table = Table()
    for heading in ("case", "expected now", "found", "what is right"):
        table.add_column(heading, overflow="fold")
    styles = {RIGHT: "green", WRONG: "red"}
    for name, case in found.items():
        table.add_row(
            name,
            expected.get(name, "not recorded"),
            f"[{styles.get(case.status, 'yellow')}]{case.status}[/]",
            what_is_right(name),
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
