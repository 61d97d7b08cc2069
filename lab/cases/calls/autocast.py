"""Autocast over a float32 model keeps the tokens and logits of the call without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from hf_token_compress import TokenCompressionConfig, prepare_inputs
from hf_token_compress.tiny import resolve_mapper

from ..common import FAMILIES, KEEP_ALL, QUARTER, WHAT, Pair, apart, encode, image, make_pair
from ..outcome import failure, report


def problems() -> Iterator[str]:
    """Forward and generate in both half precisions, with every kind of scorer."""
    for family in FAMILIES:
        settings = (
            KEEP_ALL,
            QUARTER,
            TokenCompressionConfig(retention_ratio=0.25, mapper=resolve_mapper(f"tiny-{family}")),
            TokenCompressionConfig(retention_ratio=0.25, scorer="relevance"),
        )
        for setting in settings:
            pair = make_pair(family, setting)
            inputs = encode(pair.processor, (image(1), WHAT))
            for dtype in (torch.bfloat16, torch.float16):
                name = f"{family}, {setting.scorer_name} at {setting.retention_ratio}, {dtype}"
                with torch.autocast("cpu", dtype=dtype):
                    yield from _check(name, pair, inputs, whole=setting is KEEP_ALL)


def _check(name: str, pair: Pair, inputs: dict[str, Any], whole: bool) -> Iterator[str]:
    stock = pair.stock(**inputs).logits
    try:
        found = pair.compressed(**inputs).logits
        prepared = pair.stock(**prepare_inputs(pair.compressed, **inputs)).logits
        pair.compressed.generate(**inputs, max_new_tokens=3)
    except Exception as error:
        yield f"{name}: {failure(error)}"
        return
    for what, expected in (("prepared inputs", prepared), ("stock", stock))[: 1 + whole]:
        if (difference := apart(found, expected)) > 1e-6:
            yield f"{name}: {difference:.3g} from {what}"


if __name__ == "__main__":
    report(problems)
