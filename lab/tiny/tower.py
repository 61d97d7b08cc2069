"""Train the tower of a model of another family to see as the trained tiny Qwen2-VL's does."""

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
"""Updates after which the tower's images come again."""


def warm_up_tower(
    model: StockModel,
    encode: Encoder,
    tokenizer: PreTrainedTokenizerBase,
    settings: LoopSettings,
    checkpoint: Path,
) -> None:
    """Train vision tower and projector, in place.

    They learn to give the visual tokens that the trained tower gives for the same image, which
    the language model reads already.

    Args:
        model: The model.
        encode: From grids to its [B, 64, D] visual tokens, row by row.
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
