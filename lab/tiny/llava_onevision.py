"""Train the tiny LLaVA-OneVision, one command per step.

    python -m lab.tiny.llava_onevision vision --work FOLDER
    python -m lab.tiny.llava_onevision joint  --work FOLDER
    python -m lab.tiny.llava_onevision export --work FOLDER --out MODEL

It starts from the trained tiny Qwen2-VL. Each training writes a checkpoint to FOLDER and resumes
from it.
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
"""Clips have one visual token per cell and images eight. Dropping tokens removes the answer to more
questions about clips, so it is rarer there."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    steps = ("vision", "joint", "export")
    options = step_options("lab.tiny.llava_onevision", __doc__, steps, arguments)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    path = visual_path(model, processor.tokenizer)
    run_step(options, model, processor, path, VISION, JOINT, CURRICULUM)


if __name__ == "__main__":
    main()
