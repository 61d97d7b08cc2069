"""`generate` continues from the cache of a compressed prompt with text alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..common import cache_of
from ..outcome import failure, report
from ..random_models import RANDOM, compressed


def problems() -> Iterator[str]:
    """Three tokens and then one more are the four tokens of a single call."""
    options = {
        "do_sample": False,
        "eos_token_id": -1,
        "pad_token_id": 0,
        "return_dict_in_generate": True,
        "use_cache": True,
    }
    for family, (make_model, make_inputs) in RANDOM.items():
        for ratio in (1.0, 0.5):
            model, inputs = compressed(make_model(), ratio), make_inputs()
            expected = model.generate(**inputs, **options, max_new_tokens=4).sequences
            first = model.generate(**inputs, **options, max_new_tokens=3)
            following = {
                "input_ids": first.sequences,
                "attention_mask": torch.ones_like(first.sequences),
                "cache": cache_of(first),
            }
            if "mm_token_type_ids" in inputs:
                types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 3))
                following["mm_token_type_ids"] = types
            try:
                found = model.generate(**following, **options, max_new_tokens=1).sequences
            except Exception as error:
                yield f"{family} at {ratio}: {failure(error)}"
                continue
            if not torch.equal(found, expected):
                yield f"{family} at {ratio}: another token"


if __name__ == "__main__":
    report(problems)
