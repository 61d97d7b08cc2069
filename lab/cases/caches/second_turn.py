"""A text turn continues a cache that `generate` filled while it returned plain ids, or is refused.

The refusal is one sentence that names compression.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from transformers import DynamicCache

from ..common import FAMILIES, WHAT, apart, encode, extended, image, make_pair
from ..outcome import failure, report

MORE = "what is at row 2 column 3 ?"


def problems() -> Iterator[str]:
    """Pass all ids so far, without pixels, with the cache of the first turn."""
    options = {"do_sample": False, "eos_token_id": None}
    detailed = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
    for family in FAMILIES:
        stock, model, processor = make_pair(family)
        inputs = encode(processor, (image(1), WHAT))
        more = processor.tokenizer(MORE, return_tensors="pt", add_special_tokens=False).input_ids
        cache = DynamicCache()
        first = model.generate(**inputs, max_new_tokens=4, cache=cache, **options)
        held = cache.get_seq_length()
        ids = torch.cat([first, more], 1)
        whole = extended(inputs, ids[:, inputs["input_ids"].shape[1] :])
        expected = stock.generate(**whole, **detailed, **options).logits[0]
        try:
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                cache=copy.deepcopy(cache),
                **detailed,
                **options,
            ).logits[0]
        except ValueError as error:
            if "compression" not in str(error):
                yield f"{family}: unclear refusal, {failure(error)}"
        except Exception as error:
            yield f"{family}: {failure(error)}"
        else:
            if held < first.shape[1] - 1:
                yield (
                    f"{family}: no error; the cache holds {held} of {first.shape[1]} tokens and "
                    f"the ids are cut there, logits are {apart(found, expected):.3g} from those "
                    "of the whole prompt"
                )


if __name__ == "__main__":
    report(problems)
