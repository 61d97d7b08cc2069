"""`generate_batch` of text prompts gives the stock model's tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import GenerationConfig

from ..outcome import failure, report
from ..random_models import RANDOM, compressed

PROMPTS = [[10, 11, 12, 13], [20, 21, 22]]


def problems() -> Iterator[str]:
    """Answer two prompts by continuous batching, stock and compressed."""
    for family, (make_model, _) in RANDOM.items():
        expected = _answers(make_model())
        found = _answers(compressed(make_model(), 0.5))
        if found != expected:
            yield f"{family}: {found}, stock {expected}"


def _answers(model: Any) -> list[list[int]] | str:
    config = GenerationConfig(max_new_tokens=4, do_sample=False, eos_token_id=-1, pad_token_id=0)
    try:
        results = model.generate_batch(inputs=PROMPTS, generation_config=config)
    except Exception as error:
        return failure(error)
    return [result.generated_tokens for result in results.values()]


if __name__ == "__main__":
    report(problems)
