"""Random tiny GLM-OCR models: GLM-4V with other towers; its processor is not in Transformers."""

from __future__ import annotations

from ._grids import ROPE
from .glm4v import Family as Glm4v


class Family(Glm4v):
    architecture = "GlmOcr"
    text_options = {"rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}}
