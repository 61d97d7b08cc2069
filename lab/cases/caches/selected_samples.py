"""Samples of a batch that are dropped from a cache, or swapped in it, decode as before."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from ..common import FAMILIES, WHAT, WHERE, apart, cache_of, encode, image, make_pair
from ..outcome import failure, report

SELECTIONS = {"drop sample 0": [1], "drop sample 1": [0], "swap samples": [1, 0]}


def problems() -> Iterator[str]:
    """Decode one token on the whole cache, and on the selected samples of it."""
    for family in FAMILIES:
        _, model, processor = make_pair(family)
        inputs = encode(processor, (image(1), WHAT), (image(2), WHERE))
        with torch.no_grad():
            output = model(**inputs, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
            mask = torch.cat([inputs["attention_mask"], torch.ones_like(token)], 1)
            cache = copy.deepcopy(cache_of(output))
            whole = model(input_ids=token, cache=cache, attention_mask=mask).logits
            for what, samples in SELECTIONS.items():
                cache, index = copy.deepcopy(cache_of(output)), torch.tensor(samples)
                select = cache.batch_select_indices if "drop" in what else cache.reorder_cache
                select(index)
                try:
                    part = model(
                        input_ids=token[index], cache=cache, attention_mask=mask[index]
                    ).logits
                except Exception as error:
                    yield f"{family}, {what}: {failure(error)}"
                    continue
                if (difference := apart(part, whole[index])) > 1e-3:
                    yield f"{family}, {what}: logits differ by {difference:.3g}"


if __name__ == "__main__":
    report(problems)
