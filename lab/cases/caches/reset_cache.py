"""A cache that is reset and filled again remembers nothing of the earlier prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from ..common import FAMILIES, WHAT, WHERE, apart, encode, greedy, image, logits_apart, make_pair
from ..outcome import failure, report

STEPS = 4


def problems() -> Iterator[str]:
    """Compare a prompt on a reset cache with the same prompt on a new one."""
    for family in FAMILIES:
        _, model, processor = make_pair(family)
        one = encode(processor, (image(1), WHAT))
        two = encode(processor, (image(1), WHAT), (image(2), WHERE))
        others = encode(processor, (image(3), WHERE), (image(4), WHAT))
        text, texts = encode(processor, (WHAT,)), encode(processor, (WHAT,), (WHERE,))
        for before, after in ((two, others), (two, texts), (one, text)):
            for kind in ("static", "dynamic"):
                for fill in (_by_generate, _by_forward):
                    cache = _new_cache(model, kind)
                    fill(model, before, cache)
                    cache.reset()
                    if cache.get_seq_length() == 0:
                        yield from _generated(f"{family}, {kind} cache", model, after, cache)
        for kind in ("static", "dynamic"):
            yield from _in_own_loop(f"{family}, {kind} cache, own loop", model, one, text, kind)


def _generated(name: str, model: Any, inputs: dict[str, Any], cache: Any) -> Iterator[str]:
    expected = greedy(model, inputs, 6)
    try:
        found = greedy(model, inputs, 6, cache=cache)
    except Exception as error:
        yield f"{name}: {failure(error)}"
        return
    if (difference := logits_apart(found, expected)) > 1e-3:
        yield f"{name}: logits differ by {difference:.3g}"


def _in_own_loop(name: str, model: Any, before: Any, after: Any, kind: str) -> Iterator[str]:
    cache = _new_cache(model, kind)
    _by_forward(model, before, cache)
    cache.reset()
    if cache.get_seq_length() > 0:
        return
    difference = apart(_loop(model, after, cache), _loop(model, after, _new_cache(model, "static")))
    if difference > 1e-3:
        yield f"{name}: logits differ by {difference:.3g}"


@torch.no_grad()
def _loop(model: Any, inputs: dict[str, Any], cache: Any) -> Tensor:
    """Logits [steps, B, V] of a decoding loop of the caller's own."""
    output = model(**inputs, cache=cache, use_cache=True)
    steps = []
    for _ in range(STEPS):
        steps.append(output.logits[:, -1])
        token = output.logits[:, -1:].argmax(-1)
        output = model(input_ids=token, cache=cache, use_cache=True)
    return torch.stack(steps)


def _new_cache(model: Any, kind: str) -> Any:
    if kind == "dynamic":
        return DynamicCache()
    return StaticCache(config=model.config.get_text_config(), max_cache_len=300)


def _by_generate(model: Any, inputs: dict[str, Any], cache: Any) -> None:
    greedy(model, inputs, 6, cache=cache)


@torch.no_grad()
def _by_forward(model: Any, inputs: dict[str, Any], cache: Any) -> None:
    model(**inputs, cache=cache, use_cache=True)


if __name__ == "__main__":
    report(problems)
