"""Random tiny EXAONE 4.5 models: two of three layers have a window, longer than any prompt."""

from __future__ import annotations

from typing import Any

from tiny_models import HIDDEN, TEXT_CONFIG
from typing_extensions import override

from ._grids import IDS, VISION, InTextOrder


class Family(InTextOrder):
    architecture = "Exaone4_5_"
    processor_class = "Exaone4_5_Processor"
    since = "5.24.0"
    hiding_differs = "kept tokens are renumbered"

    @override
    def config(self, **text_options: Any) -> Any:
        options = {"model_type": "exaone4", "sliding_window": 1024, "sliding_window_pattern": 3}
        windows = {"window_size": 16, "fullatt_block_indexes": [1], "num_key_value_heads": 1}
        return self.config_class(
            text_config={**TEXT_CONFIG, **options, **text_options},
            vision_config={**VISION, **windows, "out_hidden_size": HIDDEN},
            image_token_id=IDS["image_token_id"],
            video_token_id=IDS["video_token_id"],
            tie_word_embeddings=False,
        )
