"""Measure in a separate process, so that memory freed earlier does not count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).parents[2]


def run_in_own_process(
    module: str, task: Any, what: str, environment: Mapping[str, str] | None = None
) -> Any:
    """Call `python -m MODULE --task TASK` and read what it prints.

    Args:
        module: A module that takes `--task`, JSON, and prints its result as JSON on the last line.
        task: The task, in JSON types.
        what: What is measured, for the error message.
        environment: Environment variables to add to those of this process.

    Raises:
        RuntimeError: The process failed, for instance for lack of memory.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, "--task", json.dumps(task)],
        capture_output=True,
        text=True,
        cwd=_CHECKOUT,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"Measuring {what} failed: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
