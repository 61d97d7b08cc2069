"""Relevance where attention is not plainly causal: blocks of images, and prefixes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import one_sentence
from matrix import one_at_a_time
from relevance_reference import ATTENTION_RULES, expected_relevance
from tiny_models import IMAGE, PADDING, TURN_END
from torch import Tensor
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
)

from hf_token_compress.relevance import faithfulness, relevance

pytestmark = pytest.mark.core

SIDES = {"paligemma": 4, "gemma3": 2}
TEXT = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "initializer_range": 0.2,
    "pad_token_id": PADDING,
    "eos_token_id": TURN_END,
    "bos_token_id": None,
}
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "vision_use_head": False,
}
ANSWERS = [torch.tensor(ids) for ids in ([3, 8, 20], [5, 7])]


def make_model(name: str, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    if name == "paligemma":
        config: Any = PaliGemmaConfig(
            text_config={"model_type": "gemma", **TEXT},
            vision_config={**VISION, "projection_dim": 48},
            projection_dim=48,
            image_token_id=IMAGE,
        )
        model_class: Any = PaliGemmaForConditionalGeneration
    else:
        config = Gemma3Config(
            text_config={
                **TEXT,
                "sliding_window": 9,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "query_pre_attn_scalar": 12,
            },
            vision_config=VISION,
            mm_tokens_per_image=4,
            image_token_id=IMAGE,
        )
        model_class = Gemma3ForConditionalGeneration
    config._attn_implementation = attention
    model = model_class(config).eval()
    model.generation_config.suppress_tokens = [IMAGE, PADDING]
    return model


def make_inputs(name: str, lengths: list[int], side: str = "left") -> dict[str, Tensor]:
    """Prompts of a word, an image and so many words, padded on a side."""
    rows = []
    for length in lengths:
        words = torch.randint(0, 80, (length,), generator=torch.Generator().manual_seed(length))
        rows.append([7, *[IMAGE] * SIDES[name] ** 2, *words.tolist()])
    longest = max(map(len, rows))
    fills = [[PADDING] * (longest - len(row)) for row in rows]
    ids = torch.tensor(
        [
            fill + row if side == "left" else row + fill
            for fill, row in zip(fills, rows, strict=True)
        ]
    )
    pixels = [
        torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(length))
        for length in lengths
    ]
    types = ids == IMAGE if name == "gemma3" else torch.zeros_like(ids)
    return {
        "input_ids": ids,
        "attention_mask": (ids != PADDING).long(),
        "token_type_ids": types.long(),
        "pixel_values": torch.stack(pixels),
    }


# What follows a prefix has the type 1 in training; other text has the type 0.
ANSWER_TYPES = {"paligemma": 1, "gemma3": 0}


def assert_close(actual: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * scale)


each_model = pytest.mark.parametrize("name", SIDES)


@pytest.mark.parametrize(
    ("name", "rule", "side"), one_at_a_time(SIDES, ATTENTION_RULES, ["left", "right"])
)
def test_it_equals_the_equations(name: str, rule: str, side: str) -> None:
    lengths = [5, 9]
    report = relevance(
        make_model(name),
        make_inputs(name, lengths, side),
        answer_ids=ANSWERS,
        rule=rule,
        return_per_token=True,
    )
    for length, answer, sample in zip(lengths, ANSWERS, report.samples, strict=True):
        assert sample.per_token is not None
        expected = expected_relevance(
            make_model(name, "eager"), make_inputs(name, [length]), answer, rule, ANSWER_TYPES[name]
        )
        assert_close(sample.per_token, expected)


@each_model
@pytest.mark.parametrize("rule", ["gae", "gradient_input", "occlusion", "rollout"])
def test_a_later_token_changes_nothing_for_an_earlier_one(name: str, rule: str) -> None:
    """Of an answer that is replayed, as while it is generated."""
    found = [
        relevance(
            make_model(name),
            make_inputs(name, [5]),
            answer_ids=[ANSWERS[0][:count]],
            rule=rule,
            return_per_token=True,
        )
        .samples[0]
        .per_token
        for count in (1, 3)
    ]
    assert_close(found[1][:1], found[0])  # type: ignore[index,arg-type]


@each_model
def test_the_replay_predicts_the_answer_that_was_generated(name: str) -> None:
    model, inputs = make_model(name), make_inputs(name, [5, 9, 2])
    curves = faithfulness(
        model, inputs, [torch.rand(SIDES[name] ** 2) for _ in range(3)], max_new_tokens=5
    )
    with torch.no_grad():
        generated = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    for sample, ids in zip(
        curves.samples, generated[:, inputs["input_ids"].shape[1] :], strict=True
    ):
        assert torch.equal(sample.answer_ids, ids[: len(sample.answer_ids)])
        assert bool(sample.least_first.matches[0])


@pytest.mark.parametrize("rule", ["gae", "occlusion"])
def test_a_prefix_that_would_see_the_answer_is_refused(rule: str) -> None:
    """Without token types, SDPA makes all of PaliGemma's attention bidirectional."""
    inputs = make_inputs("paligemma", [5])
    del inputs["token_type_ids"]
    with one_sentence(ValueError, "token_type_ids"):
        relevance(make_model("paligemma"), inputs, answer_ids=ANSWERS[:1], rule=rule)
