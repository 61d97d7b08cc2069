"""Random tiny Qwen3-VL-MoE models: Qwen3-VL with two of four experts for each token."""

from __future__ import annotations

from .qwen3_vl import Family as Qwen3VL

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


class Family(Qwen3VL):
    architecture = "Qwen3VLMoe"
    text_options = {**Qwen3VL.text_options, **EXPERTS}
