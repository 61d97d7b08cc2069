"""Random tiny GLM-4.5V models: GLM-4V with two of four experts for each token."""

from __future__ import annotations

from ._grids import ROPE
from .glm4v import Family as Glm4v


class Family(Glm4v):
    architecture = "Glm4vMoe"
    text_options = {
        "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0},
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    }
