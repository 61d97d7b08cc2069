"""One decoding step with a static cache can be exported by `torch.export`."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from transformers import StaticCache

from ..outcome import Skipped, failure, report
from ..random_models import RANDOM, compressed

LENGTH = 20


def problems() -> Iterator[str]:
    """Export a step after a text prompt, on the compressed model."""
    try:
        from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter
    except ImportError as error:
        raise Skipped(f"This version of Transformers has no exporter ({error}).") from error

    for family, (make_model, make_inputs) in RANDOM.items():
        for ratio in (1.0, 0.5):
            model = compressed(make_model(), ratio)
            ids = make_inputs()["input_ids"].clamp(min=6)[:, :LENGTH]
            cache = StaticCache(config=model.config.get_text_config(), max_cache_len=40)
            with torch.no_grad():
                model(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    cache=cache,
                    use_cache=True,
                )
                step = {
                    "input_ids": torch.tensor([[7], [8]]),
                    "attention_mask": torch.ones(2, LENGTH + 1, dtype=torch.long),
                    "cache": cache,
                    "use_cache": True,
                }
                if family == "qwen2-vl":
                    step["position_ids"] = torch.full((3, 2, 1), LENGTH)
                try:
                    DynamoExporter().export(model, copy.deepcopy(step), config=DynamoConfig())
                except Exception as error:
                    yield f"{family} at {ratio}: {failure(error)}"


if __name__ == "__main__":
    report(problems)
