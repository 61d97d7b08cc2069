"""Random tiny LLaVA-NeXT models: rows and columns of an image count its patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, TEXT_CONFIG, TinyFamily, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

from .vipllava import CLIP

PATCH, TILE = 4, 16
SIZE = {"height": TILE, "width": TILE}
RESOLUTIONS = [[TILE * rows, TILE * columns] for rows, columns in ((1, 2), (2, 1), (2, 2))]
# Tiles, with the whole image, and tokens of an image. Of 8 x 8 patches on 2 x 2 tiles, an image of
# 6 x 8 patches covers 6 rows, and a newline ends each of them; of 4 x 8 patches on 1 x 2 tiles, an
# image of 4 x 6 patches covers 6 columns, and one of 4 x 4 patches covers 4.
IMAGES = {(6, 8): (5, 16 + 6 * 9), (6, 6): (5, 16 + 8 * 9), (4, 6): (3, 16 + 4 * 7)}
IMAGES[4, 4] = (3, 16 + 4 * 5)


class Family(TinyFamily):
    architecture = "LlavaNext"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "llama", **text_options},
            vision_config={**CLIP, "image_size": TILE, "patch_size": PATCH},
            image_token_id=IMAGE,
            image_grid_pinpoints=RESOLUTIONS,
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        rows, columns = size
        tiles, tokens = IMAGES[rows, columns]
        pixels = torch.randn(tiles, 3, TILE, TILE, generator=generator)
        return Visual("image", [IMAGE] * tokens, pixels, (PATCH * rows, PATCH * columns))

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        found = [visual for own in visuals for visual in own if visual.kind == "image"]
        if not found:
            return {}
        pixels = [visual.pixels for visual in found]
        return {
            "pixel_values": torch.nn.utils.rnn.pad_sequence(pixels, batch_first=True),
            "image_sizes": torch.tensor([visual.size for visual in found]),
        }

    @override
    def processor(self) -> Any:
        return transformers.LlavaNextProcessor(
            self.image_processor(),
            word_tokenizer({"<image>": IMAGE}),
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )

    def image_processor(self) -> Any:
        """Cuts images into tiles."""
        return transformers.LlavaNextImageProcessor(
            size=SIZE, crop_size=SIZE, image_grid_pinpoints=RESOLUTIONS
        )
