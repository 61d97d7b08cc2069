"""Random tiny LFM2-VL models: convolutions and attention, images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VISION_END, VISION_START, TinyFamily, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

WORDS = {"<image>": IMAGE, "<|image_start|>": VISION_START, "<|image_end|>": VISION_END}
PATCH = 4


class Family(TinyFamily):
    architecture = "Lfm2Vl"
    hiding_differs = "convolutions read hidden tokens too"
    attention_layers = (1, 2)

    @override
    def config(self, **text_options: Any) -> Any:
        layers = {"layer_types": ["conv", "full_attention", "full_attention"], "block_ff_dim": 64}
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "lfm2", **layers, **text_options},
            vision_config={
                "model_type": "siglip2_vision_model",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_patches": 64,
                "patch_size": PATCH,
                "vision_use_head": False,
            },
            image_token_id=IMAGE,
            projector_hidden_size=48,
            tie_word_embeddings=False,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        rows, columns = size
        pixels = torch.randn(4 * rows * columns, 3 * PATCH * PATCH, generator=generator)
        ids = [VISION_START, *[IMAGE] * (rows * columns), VISION_END]
        return Visual("image", ids, pixels, (2 * rows, 2 * columns))

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        found = [visual for own in visuals for visual in own]
        if not found:
            return {}
        real = [torch.ones(len(visual.pixels), dtype=torch.int64) for visual in found]
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "pixel_values": pad([visual.pixels for visual in found], batch_first=True),
            "pixel_attention_mask": pad(real, batch_first=True),
            "spatial_shapes": torch.tensor([visual.size for visual in found]),
        }

    @override
    def processor(self) -> Any:
        images = transformers.Lfm2VlImageProcessor(
            encoder_patch_size=PATCH,
            min_image_tokens=4,
            max_image_tokens=64,
            tile_size=32,
            do_image_splitting=False,
        )
        return transformers.Lfm2VlProcessor(images, word_tokenizer(WORDS))
