"""Bad input to relevance: one clear sentence each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from errors import one_sentence
from tiny_models import (
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    TEXT_ONLY,
    TWO_IMAGES,
    make_inputs,
    tiny_base_model,
    tiny_model,
)
from torch import nn
from transformers import BloomConfig, BloomForCausalLM, Gemma2Config, Gemma2ForCausalLM

from hf_token_compress import TokenCompressionConfig, compress
from hf_token_compress.relevance import faithfulness, relevance
from hf_token_compress.relevance.attention_tap import AttentionTap, tapped_twin

pytestmark = pytest.mark.core

ANSWER = [torch.tensor([3, 4])]


def test_it_works_in_inference_mode_and_leaves_it() -> None:
    inputs = make_inputs([ONE_IMAGE])
    expected = relevance(tiny_model(), inputs, answer_ids=ANSWER).samples[0].scores
    model = tiny_model()
    with torch.inference_mode():
        made_inside = {name: value.clone() for name, value in inputs.items()}
        found = relevance(model, made_inside, answer_ids=ANSWER).samples[0].scores
        assert torch.is_inference_mode_enabled()
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


class OwnAttention(nn.Module):
    """An attention layer that calls a flash kernel by itself, say."""

    def forward(self, hidden_states: Any, **options: Any) -> Any:
        return hidden_states, None


def test_attention_that_is_not_called_through_the_interface() -> None:
    model = tiny_model()
    for layer in model.get_decoder().layers:
        layer.self_attn = OwnAttention()
    with one_sentence(ValueError, "intercepted"):
        relevance(model, make_inputs([ONE_IMAGE]), answer_ids=ANSWER)
    assert model.get_decoder().config._attn_implementation == "sdpa"
    relevance(model, make_inputs([ONE_IMAGE]), answer_ids=ANSWER, rule="occlusion")


def run_tapped(model: Any) -> None:
    tap = AttentionTap()
    tapped_twin(model, tap)(torch.tensor([[1, 2]]))
    tap.check(model)


SMALL_GEMMA = Gemma2Config(
    vocab_size=9,
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
)

WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no_tokens": (
        lambda: relevance(
            tiny_model(), make_inputs([ONE_IMAGE]), answer_ids=[torch.tensor([], dtype=torch.long)]
        ),
        ValueError,
        "no tokens",
    ),
    "no_visual_tokens": (
        lambda: relevance(tiny_model(), make_inputs([ONE_IMAGE, TEXT_ONLY]), answer_ids=ANSWER * 2),
        ValueError,
        "Prompt 1",
    ),
    "text_only": (
        lambda: relevance(tiny_model(), make_inputs([TEXT_ONLY]), answer_ids=ANSWER),
        ValueError,
        "no visual tokens",
    ),
    "answers_missing": (
        lambda: relevance(tiny_model(), make_inputs([ONE_IMAGE] * 2), answer_ids=ANSWER),
        ValueError,
        "one tensor per prompt",
    ),
    "answer_of_text": (
        lambda: relevance(tiny_model(), make_inputs([ONE_IMAGE]), answer_ids=["cat"]),
        TypeError,
        "token ids",
    ),
    "no_head": (
        lambda: relevance(tiny_base_model(), make_inputs([ONE_IMAGE]), answer_ids=ANSWER),
        ValueError,
        "language model head",
    ),
    "no_model": (
        lambda: relevance(nn.Linear(2, 2), {}, answer_ids=ANSWER),
        TypeError,
        "Linear",
    ),
    "unknown_targets": (
        lambda: relevance(tiny_model(), make_inputs([ONE_IMAGE]), targets="all"),
        ValueError,
        "per_token",
    ),
    "tokens_of_a_sum": (
        lambda: relevance(
            tiny_model(), make_inputs([ONE_IMAGE]), targets="sum", return_per_token=True
        ),
        ValueError,
        "return_per_token",
    ),
    "decoder_without_the_interface": (
        lambda: run_tapped(
            BloomForCausalLM(BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2))
        ),
        ValueError,
        "Bloom",
    ),
    "attention_with_another_map": (
        lambda: run_tapped(Gemma2ForCausalLM(SMALL_GEMMA)),
        ValueError,
        "softcap",
    ),
    "scores_of_another_prompt": (
        lambda: faithfulness(
            tiny_model(), make_inputs([ONE_IMAGE]), [torch.rand(5)], answer_ids=ANSWER
        ),
        ValueError,
        "48",
    ),
    "scores_missing": (
        lambda: faithfulness(tiny_model(), make_inputs([ONE_IMAGE]), [], answer_ids=ANSWER),
        ValueError,
        "one tensor per prompt",
    ),
    "ratio_of_nothing": (
        lambda: faithfulness(
            tiny_model(), make_inputs([ONE_IMAGE]), [torch.rand(48)], retention_ratios=[0.0]
        ),
        ValueError,
        "(0, 1]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str) -> None:
    call, kind, word = WRONG[case]
    with one_sentence(kind, word):
        call()


# The scorer


def oracle(**options: Any) -> Any:
    return compress(
        tiny_model(),
        TokenCompressionConfig(
            retention_ratio=0.25,
            min_visual_tokens=0,
            scorer="relevance",
            scorer_options={"max_new_tokens": 3, **options},
        ),
    )


def test_the_oracle_keeps_what_relevance_says() -> None:
    """In forward and generate, in a batch with a prompt of text alone, in inference mode."""
    model = oracle(rule="gae")
    prompts = [ONE_IMAGE, TEXT_ONLY, TWO_IMAGES, IMAGE_AND_VIDEO]
    inputs = make_inputs(prompts)
    expected = [
        relevance(tiny_model(), make_inputs([prompt]), rule="gae", max_new_tokens=3).samples[0]
        for prompt in prompts
        if prompt is not TEXT_ONLY
    ]

    def check() -> None:
        reports = [s for s in model.token_compression.last.samples if s.visual_tokens_before]
        for sample, own in zip(reports, expected, strict=True):
            torch.testing.assert_close(sample.scores, own.scores, rtol=1e-4, atol=1e-5)
            assert sample.visual_tokens_after == round(0.25 * len(own.scores))

    model(**inputs)
    check()
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    check()


def test_the_oracle_does_not_explain_labels() -> None:
    inputs = make_inputs([ONE_IMAGE])
    with one_sentence(ValueError, "labels"):
        oracle()(**inputs, labels=inputs["input_ids"])


def test_the_oracle_needs_the_model() -> None:
    with pytest.raises(TypeError, match="model"):
        oracle().token_compression.scorer.score(None)
