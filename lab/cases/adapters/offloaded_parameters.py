"""A LLaVA-OneVision whose parameters Accelerate offloads runs compressed as it runs stock."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import cpu_offload
from transformers import LlavaOnevisionForConditionalGeneration

from ..common import apart
from ..outcome import failure, report
from ..random_models import compressed, llava_onevision, llava_onevision_inputs, setting

DEVICE_MAPS: tuple[dict[str, str], ...] = (
    {"": "disk"},
    {
        "model.image_newline": "cpu",
        "model.vision_tower": "disk",
        "model.multi_modal_projector": "cpu",
        "model.language_model": "cpu",
        "lm_head": "cpu",
    },
)


def problems() -> Iterator[str]:
    """Compare `cpu_offload` and disk device maps with the model in memory."""
    base, inputs = llava_onevision(), llava_onevision_inputs()
    for ratio in (1.0, 0.5):
        with torch.no_grad():
            expected = compressed(copy.deepcopy(base), ratio)(**inputs).logits
        offloaded = cpu_offload(
            compressed(copy.deepcopy(base), ratio), execution_device=torch.device("cpu")
        )
        yield from _check(f"cpu_offload at {ratio}", offloaded, inputs, expected)
        with tempfile.TemporaryDirectory() as saved, tempfile.TemporaryDirectory() as folder:
            base.save_pretrained(saved)
            for device_map in DEVICE_MAPS:
                name = f"{next(iter(device_map)) or 'everything'} on disk at {ratio}"
                try:
                    model = LlavaOnevisionForConditionalGeneration.from_pretrained(
                        saved,
                        device_map=device_map,
                        offload_folder=folder,
                        token_compression=setting(ratio),
                    )
                except Exception as error:
                    yield f"{name}: {failure(error)}"
                    continue
                yield from _check(name, model, inputs, expected)


def _check(name: str, model: Any, inputs: dict[str, Any], expected: Any) -> Iterator[str]:
    try:
        with torch.no_grad():
            found = model(**inputs).logits
    except Exception as error:
        yield f"{name}: {failure(error)}"
        return
    if (difference := apart(found, expected)) > 1e-5:
        yield f"{name}: logits differ by {difference:.3g}"


if __name__ == "__main__":
    report(problems)
