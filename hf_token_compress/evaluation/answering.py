"""Ask a model about images and videos, in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.chat import batches_of_one_shape, encode_samples
from ..data.media import with_frames
from ..data.sample import Sample


@dataclass(frozen=True)
class BatchAnswers:
    """Greedy answers to a batch of B questions.

    Attributes:
        texts: The answers, stripped.
        new_tokens: int64 [B, T], the generated tokens, padded after the end of an answer.
    """

    texts: list[str]
    new_tokens: Tensor


def answer_batch(
    model: Any, processor: Any, inputs: Mapping[str, Any], max_new_tokens: int
) -> BatchAnswers:
    """Greedy answers to encoded questions."""
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)  # [B, S]
    new_tokens = output[:, inputs["input_ids"].shape[1] :]  # [B, T]
    texts = processor.batch_decode(new_tokens, skip_special_tokens=True)
    return BatchAnswers([text.strip() for text in texts], new_tokens)


def answer_samples(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    batch_size: int = 16,
    max_new_tokens: int = 64,
) -> list[str]:
    """Greedy answers, stripped, in the order of the samples.

    Args:
        model: A model with `generate`, compressed or not.
        processor: Its processor.
        samples: The questions.
        batch_size: Samples per batch; images and videos of different lengths are batched apart.
        max_new_tokens: Longest answer, in tokens.
    """
    answers = [""] * len(samples)
    for start in range(0, len(samples), batch_size):
        chosen = samples[start : start + batch_size]
        loaded = [with_frames(sample, processor) for sample in chosen]
        for indices in batches_of_one_shape(loaded):
            batch = [loaded[index] for index in indices]
            inputs = encode_samples(processor, batch).to(model.device)
            found = answer_batch(model, processor, inputs, max_new_tokens)
            for index, text in zip(indices, found.texts, strict=True):
                answers[start + index] = text
    return answers
