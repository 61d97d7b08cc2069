"""Ask a model about images and videos, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..data.chat import batches_of_one_shape, encode_samples
from ..data.media import with_frames
from ..data.sample import Sample


def answer_samples(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    before_batch: Callable[[Sequence[Sample]], None] | None = None,
    after_batch: Callable[[int], None] | None = None,
) -> list[str]:
    """Greedy answers, stripped, in the order of the samples.

    Args:
        model: A model with `generate`, compressed or not.
        processor: Its processor.
        samples: The questions.
        batch_size: Samples per batch; images and videos of different lengths are batched apart.
        max_new_tokens: Longest answer, in tokens.
        before_batch: Called with the samples of a batch before it is asked.
        after_batch: Called with the number of samples of a batch after it is answered.
    """
    answers = [""] * len(samples)
    for start in range(0, len(samples), batch_size):
        chosen = samples[start : start + batch_size]
        loaded = [with_frames(sample, processor) for sample in chosen]
        for indices in batches_of_one_shape(loaded):
            batch = [loaded[index] for index in indices]
            if before_batch is not None:
                before_batch(batch)
            inputs = encode_samples(processor, batch).to(model.device)
            with torch.inference_mode():
                output = model.generate(  # [B, S]
                    **inputs, max_new_tokens=max_new_tokens, do_sample=False
                )
            new_tokens = output[:, inputs["input_ids"].shape[1] :]  # [B, new]
            texts = processor.batch_decode(new_tokens, skip_special_tokens=True)
            for index, text in zip(indices, texts, strict=True):
                answers[start + index] = text.strip()
            if after_batch is not None:
                after_batch(len(batch))
    return answers
