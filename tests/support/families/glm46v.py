"""Random tiny GLM-4.6V models: GLM-4V with another processor."""

from __future__ import annotations

from .glm4v import Family as Glm4v


class Family(Glm4v):
    architecture = "Glm46V"
    processor_class = "Glm46VProcessor"
    image_processor = "Glm46VImageProcessor"
    video_processor = "Glm46VVideoProcessor"
