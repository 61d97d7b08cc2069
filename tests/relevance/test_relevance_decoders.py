"""Relevance on LLaVA-OneVision with other language models: equal to stored maps, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import one_sentence
from matrix import one_at_a_time
from relevance_reference import ATTENTION_RULES, expected_relevance
from tiny_models import ONE_IMAGE, TWO_TURNS, make_inputs, tiny_model
from torch import Tensor
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from hf_token_compress.compression.mask_rules import SeenMask
from hf_token_compress.relevance import relevance
from hf_token_compress.relevance.attention_tap import BACKEND, AttentionTap, tapped_twin
from hf_token_compress.relevance.hidden_answers import mask_hides_answers

pytestmark = pytest.mark.core

FAMILY = "llava_onevision"
BATCH = (ONE_IMAGE, TWO_TURNS)
ANSWERS = [torch.tensor(ids) for ids in ([3, 7], [5, 7, 9])]
SLIDING, FULL = "sliding_attention", "full_attention"

DECODERS: dict[str, dict[str, Any]] = {
    "cohere2": {"sliding_window": 9, "layer_types": [SLIDING, FULL, SLIDING]},
    "deepseek_v3": {
        "num_key_value_heads": 6,
        "q_lora_rank": 12,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 6,
        "v_head_dim": 10,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "n_shared_experts": 1,
    },
    "glm4": {"head_dim": 8},
    "phi3": {},
    "qwen3": {"head_dim": 8},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
}

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "gemma2": ({"head_dim": 8}, "eager", "softcap"),
    "gpt_oss": (
        {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
        "eager",
        "s_aux",
    ),
    "lfm2": ({"layer_types": ["conv", FULL, "conv"]}, "sdpa", "only 1 of 3 layers"),
    "qwen3_5_text": (
        {"layer_types": ["linear_attention", FULL, FULL]},
        "sdpa",
        "only 2 of 3 layers",
    ),
}


def model_with(decoder: str, options: dict[str, Any], attention: str = "sdpa") -> Any:
    model = tiny_model(attention, family=FAMILY, model_type=decoder, **options)
    assert model.get_decoder().config.model_type == decoder
    return model


@pytest.mark.parametrize(("decoder", "rule"), one_at_a_time(DECODERS, ATTENTION_RULES))
def test_it_equals_the_equations(decoder: str, rule: str) -> None:
    model = model_with(decoder, DECODERS[decoder])
    eager = model_with(decoder, DECODERS[decoder], "eager")
    report = relevance(
        model,
        make_inputs(BATCH, family=FAMILY, padding_side="right"),
        answer_ids=ANSWERS,
        rule=rule,
        return_per_token=True,
    )
    for prompt, answer, sample in zip(BATCH, ANSWERS, report.samples, strict=True):
        expected = expected_relevance(eager, make_inputs([prompt], family=FAMILY), answer, rule)
        assert sample.per_token is not None
        scale = float(expected.abs().max())
        torch.testing.assert_close(sample.per_token, expected, rtol=1e-5, atol=1e-5 * scale)


def test_a_forward_that_ignores_logits_to_keep() -> None:
    """VideoLLaMA 3 returns the logits of the whole prompt, whatever it is asked for."""
    inputs = make_inputs([ONE_IMAGE], family="video_llama_3")
    model, eager = (tiny_model(own, family="video_llama_3") for own in ("sdpa", "eager"))
    report = relevance(model, inputs, answer_ids=ANSWERS[:1], rule="gae", return_per_token=True)
    expected = expected_relevance(eager, inputs, ANSWERS[0], "gae")
    torch.testing.assert_close(report.samples[0].per_token, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decoder", REFUSED)
def test_it_refuses_what_it_cannot_explain_whole(decoder: str) -> None:
    options, attention, word = REFUSED[decoder]
    model, inputs = model_with(decoder, options, attention), make_inputs(BATCH, family=FAMILY)
    for rule in ("gae", "rollout"):
        with one_sentence(ValueError, word):
            relevance(model, inputs, answer_ids=ANSWERS, rule=rule)
    for rule in ("gradient_input", "occlusion"):
        inputs = make_inputs([TWO_TURNS], family=FAMILY)
        report = relevance(model, inputs, answer_ids=ANSWERS[1:], rule=rule)
        assert all(sample.scores.any() for sample in report.samples)


@pytest.mark.parametrize("decoder", ["lfm2", "qwen3_5_text"])
def test_rules_without_attention_see_no_padding_in_hybrids(decoder: str) -> None:
    options, attention, _ = REFUSED[decoder]
    model = model_with(decoder, options, attention)
    for side in ("left", "right"):
        inputs = make_inputs(BATCH, family=FAMILY, padding_side=side)  # type: ignore[arg-type]
        batch = relevance(model, inputs, answer_ids=ANSWERS, rule="gradient_input")
        for prompt, answer, sample in zip(BATCH, ANSWERS, batch.samples, strict=True):
            own = make_inputs([prompt], family=FAMILY)
            alone = relevance(model, own, answer_ids=[answer], rule="gradient_input")
            torch.testing.assert_close(sample.scores, alone.samples[0].scores, rtol=1e-4, atol=1e-5)


# Masks that do not come from Transformers


def small_llama() -> Any:
    config = LlamaConfig(
        vocab_size=9,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config)


def test_a_mask_of_numbers_is_refused() -> None:
    tapped = tapped_twin(small_llama(), AttentionTap())
    with one_sentence(ValueError, "mask of numbers"):
        tapped(torch.tensor([[1, 2]]), attention_mask=torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    "option", ["block_indices", "indices", "position_bias", "s_aux", "sinks", "softcap"]
)
def test_what_changes_the_map_is_refused(option: str) -> None:
    module = tapped_twin(small_llama(), AttentionTap()).model.layers[0].self_attn
    query, key = torch.zeros(1, 2, 3, 4), torch.zeros(1, 1, 3, 4)
    with one_sentence(ValueError, option):
        AttentionInterface()[BACKEND](module, query, key, key, None, **{option: torch.ones(1)})


def causal(offset: int = 0) -> Tensor:
    return torch.ones(5, 5, dtype=torch.bool).tril(offset)[None, None]


def prefix(length: int) -> Tensor:
    mask = causal().clone()
    mask[..., :length, :length] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "is_causal", "hidden"),
    [
        (None, True, True),
        (None, False, False),
        (causal(), False, True),
        (causal(1), False, False),
        (prefix(3), False, True),
        (prefix(4), False, False),
    ],
)
@pytest.mark.parametrize("as_numbers", [False, True])
def test_which_masks_hide_the_answer(
    mask: Tensor | None, is_causal: bool, hidden: bool, as_numbers: bool
) -> None:
    """A prompt of three tokens and an answer of two."""
    if as_numbers and mask is not None:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    seen = SeenMask(mask, (), is_causal, None)
    present = torch.ones(1, 5, dtype=torch.bool)
    assert mask_hides_answers(seen, torch.tensor([3]), present) is hidden


def test_padding_after_the_answer_does_not_count() -> None:
    present = torch.tensor([[True, True, True, True, False]])
    full = SeenMask(torch.ones(1, 1, 5, 5, dtype=torch.bool), (), False, None)
    assert mask_hides_answers(full, torch.tensor([4]), present)
    assert not mask_hides_answers(full, torch.tensor([3]), present)
