"""A caller's loop continues a cache that `generate` filled while it returned plain ids."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from transformers import DynamicCache

from ..common import FAMILIES, WHAT, WHERE, apart, cache_of, encode, image, make_pair
from ..outcome import failure, report


def problems() -> Iterator[str]:
    """Compare with the cache of a call that returns a dict, which knows its prompt."""
    options = {"max_new_tokens": 3, "eos_token_id": None, "do_sample": False}
    for family in FAMILIES:
        _, model, processor = make_pair(family)
        inputs = encode(processor, (image(1), WHAT), (image(2), WHERE))
        cache = DynamicCache()
        token = model.generate(**inputs, **options, cache=cache)[:, -1:]
        known = cache_of(
            model.generate(**inputs, **options, cache=DynamicCache(), return_dict_in_generate=True)
        )
        whole = torch.cat([inputs["attention_mask"], torch.ones(2, 3, dtype=torch.long)], 1)
        for what, mask in (("no mask", None), ("mask of the whole sequence", whole)):
            arguments = {"input_ids": token, "attention_mask": mask}
            with torch.no_grad():
                expected = model(**arguments, cache=copy.deepcopy(known)).logits
                try:
                    found = model(**arguments, cache=copy.deepcopy(cache)).logits
                except Exception as error:
                    yield f"{family}, {what}: {failure(error)}"
                    continue
            if (difference := apart(found, expected)) > 1e-4:
                yield f"{family}, {what}: logits differ by {difference:.3g}, without an error"


if __name__ == "__main__":
    report(problems)
