"""`generate_batch` of text prompts gives the stock model's tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import GenerationConfig

from ..outcome import failure, report
from ..random_models import compressed, qwen2_vl

PROMPTS = [[10, 11, 12, 13], [20, 21, 22]]


def problems() -> Iterator[str]:
    """Answer two prompts by continuous batching, stock and compressed."""
    # One family is enough: a batch manager takes half a minute to start and to stop.
    expected, found = _answers(qwen2_vl()), _answers(compressed(qwen2_vl(), 0.5))
    if found != expected:
        yield f"{found}, stock {expected}"


def _answers(model: Any) -> list[list[int]] | str:
    config = GenerationConfig(max_new_tokens=4, do_sample=False, eos_token_id=-1, pad_token_id=0)
    try:
        results = model.generate_batch(inputs=PROMPTS, generation_config=config)
    except Exception as error:
        return failure(error)
    return [result.generated_tokens for result in results.values()]


if __name__ == "__main__":
    report(problems)
