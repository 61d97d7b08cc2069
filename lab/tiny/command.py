"""The command lines that train the tiny models, one step per call."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..arguments import add_threads, make_parser, set_threads
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
    module: str, description: str | None, steps: Sequence[str], arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Read `step`, `--work`, `--out` and `--threads`, and set the number of threads.

    Args:
        module: Module of the command.
        description: Docstring of the module.
        steps: Names of the steps; "export" needs `--out`.
        arguments: The arguments; by default those of the process.
    """
    parser = make_parser(module, description)
    parser.add_argument("step", choices=steps)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, help="model folder to write, for export")
    add_threads(parser)
    options = parser.parse_args(arguments)
    if options.step == "export" and options.out is None:
        parser.error("export needs --out")
    set_threads(options)
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
    """Run the step "vision", "joint" or "export" of a model for images and clips.

    Args:
        options: The result of `step_options`.
        model: The untrained model.
        processor: Its processor.
        path: How it computes visual tokens.
        vision: Schedule of the tower's training; None if the tower is already trained.
        joint: Schedule of the joint training.
        curriculum: Images, clips and questions of the joint training.
        frozen: Names of parameters that the joint training does not change.
    """
    tokenizer = processor.tokenizer
    checkpoint = options.work / f"{options.step}.pt"
    if options.step == "vision":
        assert vision is not None  # only models with a schedule have this step
        warm_up_tower(model, path.encode, tokenizer, vision, checkpoint)
    elif options.step == "joint":
        if vision is not None:
            model.model.load_state_dict(averaged_state(options.work / "vision.pt"))
        train_on_images_and_clips(model, tokenizer, path, curriculum, joint, checkpoint, frozen)
    else:
        model.load_state_dict(averaged_state(options.work / "joint.pt"))
        export(model, processor, options.out)
