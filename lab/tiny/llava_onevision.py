"""Train the tiny LLaVA-OneVision, one command per step.

    python -m lab.tiny.llava_onevision vision --work FOLDER
    python -m lab.tiny.llava_onevision joint  --work FOLDER
    python -m lab.tiny.llava_onevision export --work FOLDER --out MODEL

It starts from the trained tiny Qwen2-VL. Every training writes a checkpoint to FOLDER and goes on
from it when it is started again.
"""

from __future__ import annotations

from collections.abc import Sequence

from .command import run_step, step_options
from .joint_clips import JointCurriculum
from .loop import LoopSettings
from .onevision_architecture import build_model, build_processor
from .onevision_training import visual_path

VISION = LoopSettings(steps=2400, learning_rate=2e-3)
JOINT = LoopSettings(steps=2500, learning_rate=7e-4, ema=0.998, save_every=100, report_every=250)

CURRICULUM = JointCurriculum()
"""Clips have one visual token a cell, images eight, so that dropping takes the answer from many
more questions about clips: it is rarer there."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    options = step_options(__doc__, ("vision", "joint", "export"), arguments)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    path = visual_path(model, processor.tokenizer)
    run_step(options, model, processor, path, VISION, JOINT, CURRICULUM)


if __name__ == "__main__":
    main()
