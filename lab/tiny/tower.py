"""Distil the vision tower of the trained tiny Qwen2-VL into the tower of another family."""

from __future__ import annotations

import functools
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from hf_token_compress.tiny import load_tiny

from .architecture import StockModel
from .forward import encode_scenes
from .joint_clips import CLIP_GRID
from .loop import LoopSettings
from .vision_warmup import Encoder, warm_up_vision

REPEAT_AFTER = 600
"""Updates after which the images repeat."""


def warm_up_tower(
    model: StockModel,
    encode: Encoder,
    tokenizer: PreTrainedTokenizerBase,
    settings: LoopSettings,
    checkpoint: Path,
) -> None:
    """Train vision tower and projector, in place.

    They learn the visual tokens of the trained tower, which the language model can already read.

    Args:
        model: The model.
        encode: From scenes to its visual tokens [B, 64, D], row by row.
        tokenizer: Its tokenizer.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
    """
    teacher: StockModel = load_tiny("qwen2-vl")[0]
    frozen = [
        name
        for name, _ in model.model.named_parameters()
        if not name.startswith(("vision_tower", "multi_modal_projector"))
    ]
    warm_up_vision(
        model.model,
        encode,
        model.get_input_embeddings().weight.detach(),
        tokenizer,
        settings,
        checkpoint,
        shape=lambda rng: CLIP_GRID,
        shown=(CLIP_GRID,),
        targets=functools.partial(encode_scenes, teacher.model.visual),
        frozen=frozen,
        repeat_after=REPEAT_AFTER,
    )
