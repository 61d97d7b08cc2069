"""Conversations with images on caches that quantize, or that hold a window of tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conversation import ENDLESS, Conversation, extended, logits_of, text
from matrix import full_only
from pairs import answer, assert_same, carried, make_pair, whole_position_ids
from tiny_models import FAMILIES, ONE_IMAGE
from transformers import DynamicCache, QuantizedCache, cache_utils

from hf_token_compress import prepare_inputs

pytestmark = pytest.mark.core

QUESTION = (5, "end", 2)
TURNS = ([ONE_IMAGE], [QUESTION], [(3, (6, 8), 5, "end", 2)], [QUESTION])


def special_cache(kind: str, config: Any) -> Any:
    """A cache of that kind; skips where a package is missing or too old."""
    if kind == "window":
        return DynamicCache(config=config)
    if kind == "fp8":
        if not hasattr(cache_utils, "Fp8QuantizedLayer"):
            pytest.skip("needs a newer Transformers")
        return QuantizedCache(kind, config)
    pytest.importorskip({"quanto": "optimum.quanto", "hqq": "hqq"}[kind])
    axis = 0 if kind == "quanto" else 1
    return QuantizedCache(
        kind, config, q_group_size=8, residual_length=16, axis_key=axis, axis_value=axis
    )


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("qwen2_vl", "fp8"),
        *(full_only(family, "fp8") for family in ("llava_onevision", "vila15")),
        *(full_only(family, kind) for family in FAMILIES for kind in ("quanto", "hqq")),
        full_only("mistral3", "window"),
    ],
)
def test_turns_equal_stock_on_the_kept_tokens(family: str, kind: str) -> None:
    """Both caches hold the same tokens, so they lose the same."""
    options = {"sliding_window": 24} if kind == "window" else {}
    chat = Conversation(make_pair(family=family, **options), family)
    stock, model = chat.pair
    config = model.config.get_text_config()
    cache, expected_cache = special_cache(kind, config), special_cache(kind, config)
    for number, prompts in enumerate(TURNS):
        start = max(chat.kept.shape[1] - 1, 0)
        new = chat.say(prompts, seed=number)
        inputs = {**chat.tokens, **chat.visuals, **carried(cache)}
        output = model.generate(**inputs, **ENDLESS)
        # The stock model gets the new tokens that were kept, at their positions in the whole.
        if number > 0:
            new = extended(text(chat.tokens["input_ids"][:, start : start + 1]), new)
        if chat.visuals:
            chat.drop(output.compression_report.samples, start)
            with torch.no_grad():
                new = prepare_inputs(model, **new)
        positions = whole_position_ids(stock, chat.everything())[..., start:]
        new["position_ids"] = positions[..., chat.kept[0, start:].bool()]
        new["attention_mask"] = torch.ones(1, int(chat.kept.sum()), dtype=torch.long)
        expected = stock.generate(**new, **carried(expected_cache), **ENDLESS)
        assert torch.equal(answer(output.sequences, chat.tokens), answer(expected.sequences, new))
        assert_same(logits_of(output), logits_of(expected))
        assert cache.get_seq_length() == expected_cache.get_seq_length()
        chat.hear(answer(output.sequences, chat.tokens))
    sliding = isinstance(cache.layers[0], cache_utils.DynamicSlidingWindowLayer)
    assert sliding == (kind == "window")
