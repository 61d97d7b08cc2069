"""Prompts packed in one sequence are compressed each for itself, or refused in one sentence."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from ..common import apart
from ..outcome import report
from ..random_models import RANDOM_WITH_VILA, compressed


def problems() -> Iterator[str]:
    """Compare two packed prompts, whose positions restart, with a batch of two."""
    for family, (make_model, make_inputs) in RANDOM_WITH_VILA.items():
        stock, inputs = make_model(), make_inputs()
        packed = _packed(stock, inputs)
        for ratio in (1.0, 0.5):
            model = compressed(copy.deepcopy(stock), ratio)
            with torch.no_grad():
                expected = model(**inputs, use_cache=False).logits
                try:
                    found = model(**packed, use_cache=False).logits
                except ValueError:
                    continue
            difference = apart(found, expected.reshape(1, -1, expected.shape[-1]))
            if difference > 1e-4:
                yield f"{family} at {ratio}: logits differ by {difference:.3g}, without an error"


def _packed(stock: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    batch, length = inputs["input_ids"].shape
    packed = {name: value for name, value in inputs.items() if name != "attention_mask"}
    for name in ("input_ids", "mm_token_type_ids"):
        if name in packed:
            packed[name] = packed[name].reshape(1, -1)  # [1, B * S]
    positions = torch.arange(length).repeat(batch)[None]  # [1, B * S]
    if "mm_token_type_ids" in inputs:
        axes, _ = stock.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )
        positions = torch.cat([positions, axes.reshape(3, -1)])[:, None]  # [4, 1, B * S]
    return {**packed, "position_ids": positions}


if __name__ == "__main__":
    report(problems)
