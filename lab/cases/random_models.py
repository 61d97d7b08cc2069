"""Small random models of each family, and inputs for them without a processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from hf_token_compress import TokenCompressionConfig, compress
from hf_token_compress.models.vila import VilaConfig, VilaForConditionalGeneration

RATIOS = (None, 1.0, 0.5)
"""Stock, and the two retention ratios that are compared with it."""

_TEXT: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}


def setting(ratio: float) -> TokenCompressionConfig:
    """Attention at this ratio, however few visual tokens there are."""
    return TokenCompressionConfig(retention_ratio=ratio, scorer="attention", min_visual_tokens=0)


def compressed(model: Any, ratio: float | None) -> Any:
    """The model compressed at this ratio; None leaves it stock."""
    return model if ratio is None else compress(model, setting(ratio))


def qwen2_vl() -> Any:
    """A random Qwen2-VL of two layers."""
    torch.manual_seed(0)
    text = {
        **_TEXT,
        "intermediate_size": 64,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {"type": "mrope", "mrope_section": [2, 1, 1], "rope_theta": 10000.0},
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    vision = {
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": 32,
        "mlp_ratio": 4,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_merge_size": 1,
        "temporal_patch_size": 2,
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=3,
        image_token_id=4,
        video_token_id=5,
    )
    return Qwen2VLForConditionalGeneration(config).eval()


def qwen2_vl_inputs(batch: int = 2, seed: int = 1) -> dict[str, Any]:
    """Prompts of 30 tokens, 16 of them those of an image of 4 x 4 patches."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, 99, (batch, 30), generator=generator)
    ids[:, 3], ids[:, 4:20] = 3, 4
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == 4).long(),
        "pixel_values": torch.randn(batch * 16, 3 * 14 * 14 * 2, generator=generator),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * batch),
    }


def llava_onevision() -> Any:
    """A random LLaVA-OneVision of two layers."""
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        text_config={
            **_TEXT,
            "model_type": "qwen2",
            "num_key_value_heads": 4,
            "intermediate_size": 37,
            "max_position_embeddings": 580,
            "pad_token_id": 0,
        },
        vision_config={
            "vision_use_head": False,
            "image_size": 16,
            "patch_size": 8,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 37,
        },
        image_token_index=1,
        video_token_index=2,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=[[16, 16]],
    )
    return LlavaOnevisionForConditionalGeneration(config).eval()


def llava_onevision_inputs(batch: int = 2, seed: int = 1) -> dict[str, Any]:
    """Prompts of 20 tokens, 10 of them those of an image."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 99, (batch, 20), generator=generator)
    ids[:, 1:11] = 1
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(batch, 3, 3, 16, 16, generator=generator),
        "image_sizes": torch.tensor([[45, 45]] * batch),
    }


def vila(**options: Any) -> Any:
    """A random VILA of two layers."""
    torch.manual_seed(0)
    config = VilaConfig(
        text_config={
            **_TEXT,
            "model_type": "llama",
            "num_key_value_heads": 2,
            "intermediate_size": 37,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 37,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 4,
            "vision_use_head": False,
        },
        image_token_index=1,
        video_token_index=2,
        **options,
    )
    return VilaForConditionalGeneration(config).eval()


def vila_inputs(batch: int = 2, seed: int = 1) -> dict[str, Any]:
    """Prompts of 23 tokens, 16 of them those of an image."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 99, (batch, 23), generator=generator)
    ids[:, 1:17] = 1
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(batch, 3, 28, 28, generator=generator),
    }


class Family(NamedTuple):
    """How to make a random model, and inputs for it."""

    model: Callable[..., Any]
    inputs: Callable[..., dict[str, Any]]


RANDOM = {
    "qwen2-vl": Family(qwen2_vl, qwen2_vl_inputs),
    "llava-onevision": Family(llava_onevision, llava_onevision_inputs),
}
"""The two families that Transformers' own tests cover."""

RANDOM_WITH_VILA = {**RANDOM, "vila": Family(vila, vila_inputs)}
