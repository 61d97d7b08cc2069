"""Random tiny Gemma 3 models: the tokens of an image see each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VISION_END, VISION_START, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from ._square import SIDE, TOKENS, Square, siglip


class Family(Square):
    architecture = "Gemma3"

    @override
    def config(self, **text_options: Any) -> Any:
        # No prompt of the tests is longer than the window.
        options = {"head_dim": 8, "sliding_window": 1024, "layer_types": None}
        return self.config_class(
            text_config={**TEXT_CONFIG, **options, "query_pre_attn_scalar": 8, **text_options},
            vision_config=siglip(4),
            image_token_index=IMAGE,
            boi_token_index=VISION_START,
            eoi_token_index=VISION_END,
            mm_tokens_per_image=TOKENS,
            initializer_range=0.2,
        )

    @override
    def initialise(self, model: Any) -> None:
        # It starts at zero, so that all visual tokens would be one vector.
        model.base_model.multi_modal_projector.mm_input_projection_weight.data.normal_()

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        visual = super().visual(size, alone, generator)
        return visual._replace(ids=[VISION_START, *visual.ids, VISION_END])

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        return {**super().visual_inputs(visuals, ids), "token_type_ids": (ids == IMAGE).long()}

    @override
    def processor(self) -> Any:
        tokenizer = word_tokenizer(
            {"<image>": IMAGE, "<boi>": VISION_START, "<eoi>": VISION_END},
            image_token="<image>",
            boi_token="<boi>",
            eoi_token="<eoi>",
        )
        images = transformers.Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
        return transformers.Gemma3Processor(images, tokenizer, image_seq_length=TOKENS)
