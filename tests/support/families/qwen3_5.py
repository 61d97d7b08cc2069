"""Random tiny Qwen3.5 models: three linear attention layers before each layer of attention."""

from __future__ import annotations

from ._grids import ROPE, Frames


class Family(Frames):
    architecture = "Qwen3_5"
    text_options = {
        # The recurrence multiplies rounding errors of larger weights.
        "initializer_range": 0.05,
        "num_hidden_layers": 4,
        "head_dim": 8,
        "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0},
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    }
    vision_options = {"num_position_embeddings": 64}
    processor_class = "Qwen3VLProcessor"
    video_processor = "Qwen3VLVideoProcessor"
    attention_layers = (3,)
    hiding_differs = "linear attention reads hidden tokens too"
