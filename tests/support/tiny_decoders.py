"""Random tiny LLaVA-OneVision models with any text decoder of Transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from tiny_models import tiny_family

WINDOW = 12
"""A sliding window shorter than any prompt."""

_SLIDING = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_LATENT = {
    "num_key_value_heads": 6,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_DEEPSEEK = {**_LATENT, **_EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
_DELTA = {
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

DECODERS: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "biogpt": {},
    "bitnet": {},
    "cohere": {},
    "cohere2": _SLIDING,
    "ctrl": {},
    "deepseek_v2": {**_DEEPSEEK, "head_dim": 4},
    "deepseek_v3": _DEEPSEEK,
    "diffllama": {},
    "ernie4_5": {"head_dim": 8},
    "exaone4": _SLIDING,
    "falcon_h1": {
        "mamba_d_ssm": 48,
        "mamba_n_heads": 6,
        "mamba_d_head": 8,
        "mamba_d_state": 16,
        "mamba_chunk_size": 16,
    },
    "gemma": {"head_dim": 8},
    "gemma2": {
        **_SLIDING,
        "head_dim": 8,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 2.0,
    },
    "gemma3_text": {**_SLIDING, "head_dim": 8, "query_pre_attn_scalar": 16},
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neox": {"rotary_pct": 0.5},
    "gpt_oss": {**_SLIDING, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granite": {"attention_multiplier": 0.5},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention", "attention"],
        "mamba_n_heads": 6,
        "num_local_experts": 0,
    },
    "helium": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 0, "num_experts": 2},
    "lfm2": {"layer_types": ["conv", "full_attention", "full_attention"]},
    "llama": {},
    "llama4_text": {"head_dim": 8, "attention_chunk_size": 16, "num_local_experts": 2},
    "minimax": {
        "head_dim": 8,
        "num_local_experts": 4,
        "block_size": 16,
        "layer_types": ["linear_attention", "full_attention", "full_attention"],
    },
    "ministral3": {
        "head_dim": 8,
        # Queries grow with their position, from 32 on.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "llama_4_scaling_beta": 1.0,
            "original_max_position_embeddings": 32,
        },
    },
    "mistral": {"sliding_window": WINDOW, "head_dim": 8},
    "mixtral": {"num_local_experts": 4},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": _SLIDING,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 48},
    "persimmon": {},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "qwen3_5_text": _DELTA,
    "qwen3_next": {
        **_DELTA,
        **_EXPERTS,
        "num_experts": 4,
        "shared_expert_intermediate_size": 16,
    },
    "recurrent_gemma": {},
    "seed_oss": {"head_dim": 8},
    "smollm3": {"no_rope_layers": [0, 1, 1]},
    "stablelm": {"qk_layernorm": True},
    "starcoder2": {"sliding_window": WINDOW},
    "vaultgemma": {**_SLIDING, "head_dim": 8, "query_pre_attn_scalar": 16},
}
"""Options of tiny decoders by model type; what is not said is as in `TEXT_CONFIG`."""


MORE_OF_A_KIND = (
    "apertus",
    "arcee",
    "bitnet",
    "ctrl",
    "deepseek_v2",
    "diffllama",
    "ernie4_5",
    "falcon_h1",
    "gemma",
    "gpt_bigcode",
    "granitemoehybrid",
    "helium",
    "hunyuan_v1_dense",
    "jamba",
    "nemotron",
    "olmo",
    "olmo3",
    "persimmon",
    "qwen3_next",
    "seed_oss",
    "vaultgemma",
)
"""Decoders that are like others of the table where the probe is concerned."""


_NOT_BEHIND_LLAVA = ("mamba", "recurrent_gemma")
"""Decoders whose output LLaVA-OneVision could not take before Transformers 5.24."""


def decoder_model(
    model_type: str, attention: str | None = None, *, seed: int = 0, **options: Any
) -> Any:
    """A random stock LLaVA-OneVision in evaluation mode whose text decoder is of that type.

    Args:
        model_type: `model_type` of the text configuration.
        attention: "eager" or "sdpa"; by default what the decoder supports.
        seed: Seed of the weights.
        **options: Further options of the text configuration.
    """
    if model_type in _NOT_BEHIND_LLAVA and Version(transformers.__version__) < Version("5.24.0"):
        pytest.skip(f"this Transformers cannot run {model_type} behind LLaVA")
    torch.manual_seed(seed)
    maker = tiny_family("llava_onevision")
    text = {"model_type": model_type} | DECODERS.get(model_type, {}) | options
    config = maker.config(**text)
    config._attn_implementation = attention
    return maker.model_class(config).eval()
