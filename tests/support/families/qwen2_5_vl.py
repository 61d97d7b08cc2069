"""Random tiny Qwen2.5-VL models: patches are sorted into windows first."""

from __future__ import annotations

from typing import Any

from tiny_models import HIDDEN, TEXT_CONFIG
from typing_extensions import override

from ._grids import IDS, ROPE, VISION, Grids


class Family(Grids):
    architecture = "Qwen2_5_VL"

    @override
    def config(self, **text_options: Any) -> Any:
        windows = {"window_size": 16, "fullatt_block_indexes": [1]}
        return self.config_class(
            text_config={**TEXT_CONFIG, "rope_parameters": ROPE, **text_options},
            vision_config={**VISION, **windows, "out_hidden_size": HIDDEN},
            **IDS,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )
