"""Relevance of a language model without images, whose cost the benchmark measures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from relevance_reference import relevance_matrix, weighted_maps
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lab.benchmarks.text_relevance import text_relevance

WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}


def language_model(kind: str, attention: str, key_heads: int, options: dict[str, Any]) -> Any:
    common: dict[str, Any] = {
        "vocab_size": 80,
        "hidden_size": 48,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": key_heads,
        "initializer_range": 0.3,
        "attn_implementation": attention,
    }
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**common)).eval()
    return Qwen2ForCausalLM(Qwen2Config(**common, **options)).eval()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize(
    ("kind", "options"), [("llama", {}), ("qwen2", {}), ("qwen2", WINDOW)], ids=str
)
def test_it_equals_the_equations(
    kind: str, options: dict[str, Any], key_heads: int, checkpointing: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    prompt, answer = (torch.randint(0, 80, (n,), generator=generator) for n in (14, 3))
    model = language_model(kind, "sdpa", key_heads, options)
    found = text_relevance(model, prompt, answer, checkpointing=checkpointing)
    eager = language_model(kind, "eager", key_heads, options)
    whole = {"input_ids": torch.cat([prompt, answer[:-1]])[None]}
    for number, token in enumerate(answer.tolist()):
        position = len(prompt) - 1 + number
        matrix = relevance_matrix(weighted_maps(eager, whole, position, token))
        expected = matrix[position, : len(prompt)]
        scale = float(expected.abs().max())
        torch.testing.assert_close(found[number], expected, rtol=1e-5, atol=1e-5 * scale)
