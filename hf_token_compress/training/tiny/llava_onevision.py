"""Train the tiny LLaVA-OneVision, one command per step.

    python -m hf_token_compress.training.tiny.llava_onevision vision --work FOLDER
    python -m hf_token_compress.training.tiny.llava_onevision joint  --work FOLDER
    python -m hf_token_compress.training.tiny.llava_onevision export --work FOLDER --out MODEL

It starts from the trained tiny Qwen2-VL. Every training writes a checkpoint to FOLDER and goes on
from it when it is started again.
"""

from __future__ import annotations

from collections.abc import Sequence

from hf_token_compress.training.tiny.command import step_options
from hf_token_compress.training.tiny.export import export
from hf_token_compress.training.tiny.loop import LoopSettings, averaged_state
from hf_token_compress.training.tiny.onevision_architecture import build_model, build_processor
from hf_token_compress.training.tiny.onevision_training import (
    train_on_images_and_clips,
    warm_up_tower,
)

VISION = LoopSettings(steps=2400, learning_rate=2e-3)
JOINT = LoopSettings(steps=2500, learning_rate=7e-4, ema=0.998, save_every=100, report_every=250)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    options = step_options(__doc__, ("vision", "joint", "export"), arguments)
    processor = build_processor()
    tokenizer = processor.tokenizer
    model = build_model(tokenizer)
    checkpoint = options.work / f"{options.step}.pt"
    if options.step == "vision":
        warm_up_tower(model, tokenizer, VISION, checkpoint)
    elif options.step == "joint":
        model.model.load_state_dict(averaged_state(options.work / "vision.pt"))
        train_on_images_and_clips(model, tokenizer, JOINT, checkpoint)
    else:
        model.load_state_dict(averaged_state(options.work / "joint.pt"))
        export(model, processor, options.out)


if __name__ == "__main__":
    main()
