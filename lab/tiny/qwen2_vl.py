"""Train the tiny Qwen2-VL, one command per step.

    python -m lab.tiny.qwen2_vl language --work FOLDER
    python -m lab.tiny.qwen2_vl vision   --work FOLDER
    python -m lab.tiny.qwen2_vl joint    --work FOLDER
    python -m lab.tiny.qwen2_vl export   --work FOLDER --out MODEL_FOLDER

`language` and `vision` are independent and can run at the same time. Each training writes a
checkpoint to FOLDER and resumes from it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from .architecture import StockModel, build_model
from .command import step_options
from .export import export
from .forward import encode_scenes
from .joint import train_jointly
from .language_warmup import warm_up_language
from .loop import LoopSettings, averaged_state
from .processor import build_processor
from .vision_warmup import warm_up_vision

LANGUAGE = LoopSettings(steps=3000, learning_rate=1.5e-3)
VISION = LoopSettings(steps=5000, learning_rate=2e-3)
JOINT = LoopSettings(steps=3700, learning_rate=7e-4, ema=0.998, save_every=100)


def load_warm_ups(model: StockModel, work: Path) -> None:
    """Load the weights of both warm-ups into the model.

    Raises:
        FileNotFoundError: A warm-up has not been run.
    """
    model.load_state_dict(averaged_state(work / "language.pt"))
    model.model.visual.load_state_dict(averaged_state(work / "vision.pt"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    steps = ("language", "vision", "joint", "export")
    options = step_options("lab.tiny.qwen2_vl", __doc__, steps, arguments)
    processor = build_processor()
    tokenizer = processor.tokenizer
    model = build_model(tokenizer)
    checkpoint = options.work / f"{options.step}.pt"
    if options.step == "language":
        warm_up_language(model, tokenizer, LANGUAGE, checkpoint)
    elif options.step == "vision":
        visual = model.model.visual
        words = model.get_input_embeddings().weight.detach()
        encode = functools.partial(encode_scenes, visual)
        warm_up_vision(visual, encode, words, tokenizer, VISION, checkpoint)
    elif options.step == "joint":
        load_warm_ups(model, options.work)
        train_jointly(model, tokenizer, JOINT, checkpoint)
    else:
        model.load_state_dict(averaged_state(options.work / "joint.pt"))
        export(model, processor, options.out)


if __name__ == "__main__":
    main()
