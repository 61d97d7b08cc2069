"""Random tiny Qwen3-VL models: layers add features of the vision tower to their outputs."""

from __future__ import annotations

from ._grids import Frames


class Family(Frames):
    architecture = "Qwen3VL"
    text_options = {"head_dim": 8}
    vision_options = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    processor_class = "Qwen3VLProcessor"
    video_processor = "Qwen3VLVideoProcessor"
