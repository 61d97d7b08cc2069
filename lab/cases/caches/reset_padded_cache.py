"""A reset cache serves the next prompt, whatever padding and length the earlier prompt had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import DynamicCache, StaticCache

from ..common import greedy, logits_apart
from ..outcome import failure, report
from ..random_models import RANDOM, compressed

TEXT_LIKE = ("input_ids", "attention_mask", "mm_token_type_ids")


def problems() -> Iterator[str]:
    """Fill a cache, reset it, and generate from another prompt."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(10, 99, (2, 12), generator=generator)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for family, (make_model, make_inputs) in RANDOM.items():
        padded, long = _padded(make_inputs(seed=1), 4), _longer(make_inputs(seed=1), 8)
        cases = {
            "padded, then not": (padded, _longer(make_inputs(seed=2), 4)),
            "long, then short": (long, make_inputs(seed=2)),
            "image, then text": (long, text),
            "padded, then text": (padded, text),
        }
        for ratio in (1.0, 0.5):
            for kind in ("static", "dynamic"):
                model = compressed(make_model(), ratio)
                config = model.config.get_text_config()
                static = kind == "static"
                cache: Any = (
                    StaticCache(config=config, max_cache_len=64)
                    if static
                    else DynamicCache(config=config)
                )
                for what, (first, then) in cases.items():
                    name = f"{family} at {ratio}, {kind} cache, {what}"
                    yield from _check(name, model, cache, first, then)


def _check(name: str, model: Any, cache: Any, first: Any, then: Any) -> Iterator[str]:
    expected = greedy(model, then, 5)
    try:
        cache.reset()
        greedy(model, first, 5, cache=cache)
        cache.reset()
        difference = logits_apart(greedy(model, then, 5, cache=cache), expected)
    except Exception as error:
        yield f"{name}: {failure(error)}"
        return
    if difference > 1e-4:
        yield f"{name}: logits differ by {difference:.3g}"


def _longer(inputs: dict[str, Any], count: int) -> dict[str, Any]:
    """The prompts with more text tokens behind them."""
    generator = torch.Generator().manual_seed(9)
    ids = torch.randint(10, 99, (2, count), generator=generator)
    more = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": torch.zeros_like(ids),
    }
    return {k: torch.cat([v, more[k]], 1) if k in more else v for k, v in inputs.items()}


def _padded(inputs: dict[str, Any], count: int) -> dict[str, Any]:
    """The first prompt with more text before it, the second padded on the left."""
    before = {name: torch.zeros(2, count, dtype=torch.long) for name in TEXT_LIKE}
    generator = torch.Generator().manual_seed(3)
    before["input_ids"][0] = torch.randint(10, 99, (count,), generator=generator)
    before["attention_mask"][0] = 1
    return {k: torch.cat([before[k], v], 1) if k in before else v for k, v in inputs.items()}


if __name__ == "__main__":
    report(problems)
