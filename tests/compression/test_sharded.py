"""Compressed models whose parameters are sharded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from places import SUPPORT


def test_fsdp2_equals_the_whole_model(tmp_path: Path) -> None:
    """Two processes: tokens kept, logits, gradients of one step, and generated tokens."""
    script, meeting = str(SUPPORT / "sharded_run.py"), str(tmp_path / "meeting")
    runs = [
        subprocess.Popen(
            [sys.executable, script, str(rank), meeting],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(errors)
