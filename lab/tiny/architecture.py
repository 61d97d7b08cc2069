"""Configuration and initial weights of the tiny Qwen2-VL."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from .processor import (
    MERGE_SIZE,
    PATCH_SIZE,
    cell_words,
)

StockModel: TypeAlias = Any
"""`Qwen2VLForConditionalGeneration` of Transformers, whose submodules have no static types."""

HIDDEN_SIZE = 192
INITIAL_STD = 0.02
_MATCH_STD = 0.05
_COPY_STRENGTH = 0.3
WORD_STD = HIDDEN_SIZE**-0.5
"""Standard deviation of word embeddings, which gives them a norm of about one."""


def build_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2VLConfig:
    """Configuration with about three million parameters and two query heads per key head."""
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN_SIZE,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "max_position_embeddings": 32768,
            "initializer_range": INITIAL_STD,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 4,
            "embed_dim": 128,
            "hidden_size": HIDDEN_SIZE,
            "num_heads": 4,
            "mlp_ratio": 4,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": 2,
            "initializer_range": 0.05,
        },
        tie_word_embeddings=True,
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
    )


def build_model(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> StockModel:
    """The untrained model, float32, on the CPU.

    Two choices let it learn within an hour on one core:

    - Word embeddings are nearly orthogonal and have about unit length. Words of one kind (names,
      colours, …) share a small component, and a leading space adds the same vector to every word.
    - Attention is initialised to be "mimetic": query and key projections are nearly equal, so a
      token attends to tokens with its own embedding. Output and value projections are nearly
      transposes of each other, so it copies from them.
    """
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(build_config(tokenizer))
    _initialise_words(model, tokenizer)
    for layer in model.model.language_model.layers:
        _make_mimetic(layer.self_attn)
    model.generation_config = greedy_generation(tokenizer)
    return model


def greedy_generation(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy decoding until the end of the turn."""
    return GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@torch.no_grad()
def _initialise_words(model: StockModel, tokenizer: PreTrainedTokenizerBase) -> None:
    weight = model.get_input_embeddings().weight
    weight.normal_(0.0, WORD_STD)
    space = torch.randn(HIDDEN_SIZE) * WORD_STD
    for words in cell_words().values():
        shared = torch.randn(HIDDEN_SIZE) * WORD_STD * 0.5
        for word in words:
            plain, spaced = token_id(tokenizer, word), token_id(tokenizer, f" {word}")
            weight[plain] += shared
            weight[spaced] = weight[plain] + space


@torch.no_grad()
def _make_mimetic(attention: Any) -> None:
    """Make a layer attend to similar tokens and copy from them."""
    groups = attention.num_key_value_groups
    shape = (attention.num_key_value_heads, attention.head_dim, HIDDEN_SIZE)
    keys = attention.k_proj.weight.normal_(0.0, _MATCH_STD).view(shape)
    queries = keys.repeat_interleave(groups, 0).flatten(0, 1)
    noise = torch.randn_like(queries) * _MATCH_STD * 0.3
    attention.q_proj.weight.copy_(queries + noise)
    values = attention.v_proj.weight.normal_(0.0, WORD_STD).view(shape)
    copied = values.repeat_interleave(groups, 0).flatten(0, 1)
    noise = torch.randn_like(attention.o_proj.weight) * INITIAL_STD
    attention.o_proj.weight.copy_(_COPY_STRENGTH * copied.T + noise)


def token_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Id of a text that is a single token.

    Raises:
        ValueError: It is not a single token.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"{text!r} must be one token, but it is {len(ids)}.")
    return ids[0]
