"""Write the trained model as a folder that Transformers loads by itself."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import ProcessorMixin

from .architecture import StockModel


def export(
    model: StockModel,
    processor: ProcessorMixin,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Save model and processor; a model card that is there already stays.

    Args:
        model: The trained model.
        processor: Its processor.
        folder: Where to write to.
        dtype: Type of the stored weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # weights are written for the owner only, which packaging would keep
