"""Random tiny Qwen2-VL models."""

from __future__ import annotations

from typing import Any

from tiny_models import HIDDEN, TEXT_CONFIG
from typing_extensions import override

from ._grids import IDS, ROPE, VISION, Grids


class Family(Grids):
    architecture = "Qwen2VL"

    @override
    def config(self, **text_options: Any) -> Any:
        vision = {**VISION, "embed_dim": 32, "hidden_size": HIDDEN, "mlp_ratio": 2}
        del vision["intermediate_size"]
        return self.config_class(
            text_config={**TEXT_CONFIG, "rope_parameters": ROPE, **text_options},
            vision_config=vision,
            **IDS,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )
