"""`logits_to_keep` gives the logits of right-padded completions one for one, padding included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..common import (
    FAMILIES,
    KEEP_ALL,
    QUARTER,
    WHAT,
    WHERE,
    Pair,
    apart,
    encode,
    extended,
    image,
    make_pair,
    position_ids,
)
from ..outcome import failure, report

COMPLETIONS = torch.tensor([[11, 12, 13, 14, 15], [16, 17, 18, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def problems() -> Iterator[str]:
    """Take log-probabilities as GRPO trainers do: prompts padded left, completions right."""
    for family in FAMILIES:
        for setting in (QUARTER, KEEP_ALL):
            pair = make_pair(family, setting)
            both = ((image(1), WHAT), (image(2), WHERE))
            for prompts, rows in ((both, slice(None)), (both[:1], slice(1, None))):
                padding = pair.processor.tokenizer.pad_token_id
                mask = MASK[rows]
                ids = COMPLETIONS[rows].masked_fill(mask == 0, padding)
                inputs = extended(encode(pair.processor, *prompts), ids, mask)
                name = f"{family} at {setting.retention_ratio}, batch of {len(prompts)}"
                yield from _check(name, pair, inputs, mask)


@torch.no_grad()
def _check(name: str, pair: Pair, inputs: dict[str, Any], mask: Tensor) -> Iterator[str]:
    count = mask.shape[1]
    try:
        found = pair.compressed(**inputs, logits_to_keep=count + 1).logits
    except Exception as error:
        yield f"{name}: {failure(error)}"
        return
    # The stock model with the dropped tokens hidden, at the positions of the whole prompt.
    kept = torch.zeros_like(inputs["attention_mask"])
    for sample, row in zip(pair.compressed.token_compression.last.samples, kept, strict=True):
        row[sample.kept_indices] = 1
    hidden = {**inputs, "attention_mask": kept, "position_ids": position_ids(pair.stock, inputs)}
    expected = pair.stock(**hidden).logits[:, -count - 1 :]
    for sample, length in enumerate(mask.sum(1).tolist()):
        difference = apart(found[sample, :length], expected[sample, :length])
        if difference > 1e-2:
            yield f"{name}, sample {sample}: logits differ by {difference:.3g}"


if __name__ == "__main__":
    report(problems)
