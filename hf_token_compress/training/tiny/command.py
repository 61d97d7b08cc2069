"""The command line that the trainings of the tiny models share: one step a call."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch


def step_options(
    description: str | None, steps: Sequence[str], arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Read `step`, `--work`, `--out` and `--threads`, and set the number of threads.

    Args:
        description: Help text.
        steps: Names of the steps; "export" is the one that needs `--out`.
        arguments: The arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=steps)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, help="model folder to write, for export")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args(arguments)
    if options.step == "export" and options.out is None:
        parser.error("export needs --out")
    torch.set_num_threads(options.threads)
    return options
