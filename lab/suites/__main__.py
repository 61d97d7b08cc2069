"""Transformers' own model and generation tests, on stock models and on models compressed at 1.0.

    python -m lab.suites CHECKOUT
    python -m lab.suites CHECKOUT --families qwen2_vl --select "generate or cache"

CHECKOUT is a checkout of Transformers at the installed version, with its `tests` folder. Its tests
need `parameterized`. Exits with 1 if a test fails that passes on stock models.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..arguments import comma_list, make_parser

CHECKOUT = Path(__file__).parents[2]
PLUGIN = "lab.suites.keep_all"
_PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests twice, and print what fails on compressed models alone."""
    parser = make_parser("lab.suites", __doc__)
    parser.add_argument("checkout", type=Path, help="a checkout of Transformers")
    parser.add_argument(
        "--families",
        type=comma_list(str),
        default=["qwen2_vl", "llava_onevision", "llava"],
        help="names of folders in tests/models, between commas",
    )
    parser.add_argument("--select", default="", help="only these tests, as pytest's -k takes them")
    options = parser.parse_args(arguments)
    worse = 0
    for family in options.families:
        file = options.checkout / "tests" / "models" / family / f"test_modeling_{family}.py"
        if not file.exists():
            parser.error(f"There is no {file}: name a checkout of Transformers, with its tests.")
        stock = run_tests(options.checkout, file, options.select)
        compressed = run_tests(options.checkout, file, options.select, "-p", PLUGIN)
        right = {name for name, message in stock.items() if message is None}
        failed = {name: compressed.get(name, "did not run") for name in sorted(right)}
        failed = {name: message for name, message in failed.items() if message is not None}
        worse += len(failed)
        print(f"{family}: {len(right)} of {len(stock)} pass on stock models, ", end="")
        print(f"{len(right) - len(failed)} of these on compressed ones")
        for name, message in failed.items():
            print(f"  {name}: {message}", flush=True)
    return 1 if worse else 0


def run_tests(checkout: Path, file: Path, select: str, *options: str) -> dict[str, str | None]:
    """The tests of a file that ran, with the first line of what failed; None for right ones."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        paths = [str(CHECKOUT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        subprocess.run(
            [*_PYTEST, f"--junitxml={report}", "-k", select, *options, str(file.resolve())],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        cases = list(ElementTree.parse(report).iter("testcase"))
    found: dict[str, str | None] = {}
    for case in cases:
        if case.find("skipped") is not None:
            continue
        failures = [*case.iter("failure"), *case.iter("error")]
        lines = [*(failure.get("message", "") for failure in failures)]
        found[case.get("name", "")] = lines[0].partition("\n")[0][:160] if lines else None
    return found


if __name__ == "__main__":
    sys.exit(main())
