"""Random tiny Mistral 3 models: a text token ends every row of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import IMAGE, TEXT_CONFIG, VISION_END, Visual
from tiny_processors import word_tokenizer
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from ._square import Square

ROW_BREAK = 8
VISION = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
    "image_size": 64,
    "patch_size": 4,
}


class Family(Square):
    """Rows and columns of an image count its visual tokens."""

    architecture = "Mistral3"

    @override
    def config(self, **text_options: Any) -> Any:
        return self.config_class(
            text_config={**TEXT_CONFIG, "model_type": "mistral", "head_dim": 8, **text_options},
            vision_config=VISION,
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        rows, columns = size
        pixels = torch.randn(3, 8 * rows, 8 * columns, generator=generator)
        return Visual("image", [*[IMAGE] * columns, ROW_BREAK] * rows, pixels, size)

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        found = [visual.pixels for own in visuals for visual in own]
        if not found:
            return {}
        sizes = torch.tensor([pixels.shape[1:] for pixels in found])
        height, width = sizes.amax(0).tolist()
        padded = [pad(own, (0, width - own.shape[2], 0, height - own.shape[1])) for own in found]
        return {"pixel_values": torch.stack(padded), "image_sizes": sizes}

    @override
    def processor(self) -> Any:
        return transformers.PixtralProcessor(
            transformers.PixtralImageProcessor(size={"longest_edge": 64}, patch_size=8),
            word_tokenizer({"[IMG]": IMAGE, "[IMG_BREAK]": ROW_BREAK, "[IMG_END]": VISION_END}),
            patch_size=4,
            spatial_merge_size=2,
        )
