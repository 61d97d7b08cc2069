"""Train the tiny Qwen2-VL for images and videos, one command per step.

    python -m lab.tiny.qwen2_vl_video joint  --work FOLDER
    python -m lab.tiny.qwen2_vl_video export --work FOLDER --out MODEL

It starts from the trained tiny Qwen2-VL, which has seen only images, and keeps its vision tower.
The training writes a checkpoint to FOLDER and resumes from it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.tiny import load_tiny

from .architecture import StockModel
from .architecture import build_model as build_untrained
from .command import run_step, step_options
from .forward import encode_scenes
from .grids import random_shape
from .joint_clips import JointCurriculum, VisualPath
from .loop import LoopSettings
from .packing import Packer, grid_positions
from .processor import build_processor, clip_words
from .transplant import take_language_model

JOINT = LoopSettings(steps=1100, learning_rate=1.2e-3, ema=0.998, save_every=100, report_every=100)

CURRICULUM = JointCurriculum(
    period=5,
    shape=random_shape,
    images=6,
    clips=3,
    clip_questions=20,
    clip_mixture={"during": 6.0, "first": 2.0, "last": 2.0, "colour": 0.5, "letter": 1.5},
    repeated_scene_share=0.15,
    max_frames_per_scene=2,
    clip_drop_share=0.4,
)
"""A frame of visual tokens is two frames of the video, which show the same scene."""


def build_model(tokenizer: PreTrainedTokenizerBase) -> StockModel:
    """The untrained model, float32, on the CPU."""
    loaded: Any = load_tiny("qwen2-vl")
    source, source_processor = loaded
    model = build_untrained(tokenizer)
    model.model.visual.load_state_dict(source.model.visual.state_dict())
    take_language_model(model, tokenizer, source, source_processor)
    return model


def visual_path(model: StockModel, tokenizer: PreTrainedTokenizerBase) -> VisualPath:
    """The visual path for images, and for clips that show each scene for two frames."""
    return VisualPath(
        encode=functools.partial(encode_scenes, model.model.visual),
        join=_join,
        positions=lambda shape, frames: grid_positions((2 * shape[0], 2 * shape[1]), frames or 1),
        packer=Packer(tokenizer),
    )


def _join(tokens: torch.Tensor, frames: int) -> torch.Tensor:
    """Concatenate the frames of each clip: [B * frames, N, D] → [B, frames * N, D]."""
    return tokens.unflatten(0, (-1, frames)).flatten(1, 2) if frames else tokens


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    options = step_options("lab.tiny.qwen2_vl_video", __doc__, ("joint", "export"), arguments)
    processor = build_processor(clip_words())
    model = build_model(processor.tokenizer)
    path = visual_path(model, processor.tokenizer)
    tower = [name for name, _ in model.named_parameters() if name.startswith("model.visual.")]
    run_step(options, model, processor, path, None, JOINT, CURRICULUM, frozen=tower)


if __name__ == "__main__":
    main()
