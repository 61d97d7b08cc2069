"""Random tiny Qwen3.5-MoE models: Qwen3.5 with two of four experts for each token."""

from __future__ import annotations

from .qwen3_5 import Family as Qwen3_5
from .qwen3_vl_moe import EXPERTS


class Family(Qwen3_5):
    architecture = "Qwen3_5Moe"
    text_options = {**Qwen3_5.text_options, **EXPERTS, "shared_expert_intermediate_size": 32}
