"""The command lines that train the tiny models: one step a call."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from .architecture import StockModel
from .export import export
from .joint_clips import (
    JointCurriculum,
    VisualPath,
    train_on_images_and_clips,
)
from .loop import LoopSettings, averaged_state
from .tower import warm_up_tower


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


def run_step(
    options: argparse.Namespace,
    model: StockModel,
    processor: Any,
    path: VisualPath,
    vision: LoopSettings | None,
    joint: LoopSettings,
    curriculum: JointCurriculum,
    frozen: Iterable[str] = (),
) -> None:
    """Run the step "vision", "joint" or "export" of a model that reads images and clips.

    Args:
        options: As `step_options` reads them.
        model: The model before its own training.
        processor: Its processor.
        path: How it sees grids.
        vision: Schedule of the tower's training; None where the tower is trained already.
        joint: Schedule of the joint training.
        curriculum: What the joint training shows and asks.
        frozen: Parameters that the joint training leaves as they are.
    """
    tokenizer = processor.tokenizer
    checkpoint = options.work / f"{options.step}.pt"
    if options.step == "vision":
        assert vision is not None  # or else it is no step
        warm_up_tower(model, path.encode, tokenizer, vision, checkpoint)
    elif options.step == "joint":
        if vision is not None:
            model.model.load_state_dict(averaged_state(options.work / "vision.pt"))
        train_on_images_and_clips(model, tokenizer, path, curriculum, joint, checkpoint, frozen)
    else:
        model.load_state_dict(averaged_state(options.work / "joint.pt"))
        export(model, processor, options.out)
