"""Write the trained model as a checkpoint folder of Transformers."""

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
    """Save model and processor; an existing model card is kept.

    Args:
        model: The trained model.
        processor: Its processor.
        folder: Folder to write to.
        dtype: dtype of the stored weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # weights are saved readable by the owner only; a wheel would keep that
