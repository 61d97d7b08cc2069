"""Random tiny Cohere Compass models: windows longer than any prompt, and features for layers."""

from __future__ import annotations

from ._grids import ROPE
from .qwen3_vl import Family as Qwen3VL


class Family(Qwen3VL):
    architecture = "CohereCompass"
    since = "5.24.0"
    text_options = {
        "sliding_window": 1024,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": ROPE},
    }
    processor_class = "CohereCompassProcessor"
    image_processor = "CohereCompassImageProcessor"
    video_processor = "CohereCompassVideoProcessor"
    words = {
        word.replace("image_pad", "IMAGE_PAD").replace("video_pad", "VIDEO_PAD"): token
        for word, token in Qwen3VL.words.items()
    }
