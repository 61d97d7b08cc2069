"""Train the tiny VILA, one command per step.

    python -m lab.tiny.vila vision --work FOLDER
    python -m lab.tiny.vila joint  --work FOLDER
    python -m lab.tiny.vila export --work FOLDER --out MODEL

It starts from the trained tiny LLaVA-OneVision and Qwen2-VL. Each training writes a checkpoint to
FOLDER and resumes from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .command import run_step, step_options
from .joint_clips import JointCurriculum
from .loop import LoopSettings
from .vila_architecture import build_model, build_processor
from .vila_forward import visual_path

VISION = LoopSettings(steps=1800, learning_rate=2e-3)
JOINT = LoopSettings(steps=1700, learning_rate=7e-4, ema=0.995, save_every=100)
CURRICULUM = JointCurriculum(
    images=12,
    clips=4,
    clip_mixture={"during": 3.0, "first": 2.0, "last": 2.0, "colour": 2.0, "letter": 3.0},
    clip_drop_share=0.5,
    repeated_scene_share=0.1,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    options = step_options("lab.tiny.vila", __doc__, ("vision", "joint", "export"), arguments)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    path = visual_path(model, processor)
    run_step(options, model, processor, path, VISION, JOINT, CURRICULUM)


if __name__ == "__main__":
    main()
