"""Ask a model about images and clips, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..data.tasks import Sample


def encode_samples(processor: Any, samples: Sequence[Sample]) -> Any:
    """Model inputs for one batch of samples: one user turn each, padded on the left."""
    conversations = [
        [
            {
                "role": "user",
                "content": [_shown(sample), {"type": "text", "text": sample.question}],
            }
        ]
        for sample in samples
    ]
    options: dict[str, Any] = {"padding": True, "padding_side": "left"}
    if any(sample.frames for sample in samples):
        options["do_sample_frames"] = False  # the frames that are given are the sample
    return processor.apply_chat_template(
        conversations,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def _shown(sample: Sample) -> dict[str, Any]:
    if sample.frames:
        return {"type": "video", "video": list(sample.frames)}
    return {"type": "image", "image": sample.image}


def answer_samples(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    batch_size: int = 32,
    max_new_tokens: int = 16,
    before_batch: Callable[[Sequence[Sample]], None] | None = None,
    after_batch: Callable[[int], None] | None = None,
) -> list[str]:
    """Greedy answers, stripped, in the order of the samples.

    Args:
        model: A model with `generate`, compressed or not.
        processor: Its processor.
        samples: The questions.
        batch_size: Samples a batch.
        max_new_tokens: Longest answer, in tokens.
        before_batch: Called with the samples of a batch before it is asked.
        after_batch: Called with the number of samples of a batch after it is answered.
    """
    answers: list[str] = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        if before_batch is not None:
            before_batch(batch)
        inputs = encode_samples(processor, batch).to(model.device)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        decoded = processor.batch_decode(new_tokens, skip_special_tokens=True)
        answers.extend(text.strip() for text in decoded)
        if after_batch is not None:
            after_batch(len(batch))
    return answers
