"""Train the tiny LLaVA-OneVision, one command per step.

    python -m hf_token_compress.training.tiny.llava_onevision vision --work FOLDER
    python -m hf_token_compress.training.tiny.llava_onevision joint  --work FOLDER
    python -m hf_token_compress.training.tiny.llava_onevision export --work FOLDER --out MODEL

It starts from the trained tiny Qwen2-VL. Every training writes a checkpoint to FOLDER and goes on
from it when it is started again.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from hf_token_compress.training.tiny.export import export
from hf_token_compress.training.tiny.loop import LoopSettings, averaged_state
from hf_token_compress.training.tiny.onevision_architecture import build_model, build_processor
from hf_token_compress.training.tiny.onevision_training import (
    train_on_images_and_clips,
    warm_up_tower,
)

VISION = LoopSettings(steps=3000, learning_rate=2e-3)
JOINT = LoopSettings(steps=2000, learning_rate=7e-4, ema=0.995, save_every=50)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("vision", "joint", "export"))
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, help="model folder to write, for export")
    parser.add_argument("--updates", type=int, help="updates of the training, in all")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args(arguments)
    if options.step == "export" and options.out is None:
        parser.error("export needs --out")
    torch.set_num_threads(options.threads)
    processor = build_processor()
    tokenizer = processor.tokenizer
    model = build_model(tokenizer)
    checkpoint = options.work / f"{options.step}.pt"
    settings = VISION if options.step == "vision" else JOINT
    if options.updates:
        settings = dataclasses.replace(settings, steps=options.updates)
    if options.step == "vision":
        warm_up_tower(model, tokenizer, settings, checkpoint)
    elif options.step == "joint":
        model.model.load_state_dict(averaged_state(options.work / "vision.pt"))
        train_on_images_and_clips(model, tokenizer, settings, checkpoint)
    else:
        model.load_state_dict(averaged_state(options.work / "joint.pt"))
        export(model, processor, options.out)


if __name__ == "__main__":
    main()
