"""A text turn continues a cache that `generate` filled while it returned plain ids."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import DynamicCache

from ..common import FAMILIES, WHAT, apart, encode, extended, image, make_pair, position_ids
from ..outcome import failure, report

MORE = "what is at row 2 column 3 ?"


def problems() -> Iterator[str]:
    """Compare with the stock model on all ids so far, with the dropped tokens hidden."""
    options = {"do_sample": False, "eos_token_id": None}
    detailed = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
    for family in FAMILIES:
        stock, model, processor = make_pair(family)
        inputs = encode(processor, (image(1), WHAT))
        more = processor.tokenizer(MORE, return_tensors="pt", add_special_tokens=False).input_ids
        cache = DynamicCache()
        first = model.generate(**inputs, max_new_tokens=4, cache=cache, **options)
        (sample,) = model.token_compression.last.samples
        ids = torch.cat([first, more], 1)
        whole = extended(inputs, ids[:, inputs["input_ids"].shape[1] :])
        positions = position_ids(stock, whole)
        whole["attention_mask"][0, sample.visual_indices[~sample.kept_visual]] = 0
        with torch.no_grad():
            expected = stock(**whole, position_ids=positions).logits[:, -1]
        try:
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), cache=cache, **detailed, **options
            ).logits[0]
        except Exception as error:
            yield f"{family}: {failure(error)}"
            continue
        if (difference := apart(found, expected)) > 1e-4:
            yield f"{family}: logits differ by {difference:.3g} from those of the whole sequence"


if __name__ == "__main__":
    report(problems)
