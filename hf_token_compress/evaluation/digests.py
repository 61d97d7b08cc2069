"""Short texts that are equal for equal contents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from PIL import Image

_LENGTH = 16


def visuals_digest(visuals: Sequence[Any]) -> str:
    """Of the images of a sample, or of the frames of its video."""
    found = hashlib.sha256()
    pending = list(visuals)
    while pending:
        item = pending.pop()
        if isinstance(item, Image.Image):
            found.update(f"{item.mode}{item.size}".encode())
            found.update(item.tobytes())
        elif isinstance(item, list | tuple):
            pending.extend(item)
        else:
            found.update(str(item).encode())
    return found.hexdigest()[:_LENGTH]


def weights_digest(modules: Iterable[torch.nn.Module], most: int | None = None) -> str:
    """Of the parameters of modules, or of the first `most` numbers of each."""
    found = hashlib.sha256()
    for module in modules:
        for name, parameter in module.named_parameters():
            found.update(name.encode())
            if not parameter.is_meta:
                numbers = parameter.detach().flatten()[:most].float().cpu()
                found.update(numbers.numpy().tobytes())
    return found.hexdigest()[:_LENGTH]


def texts_digest(texts: Iterable[Any]) -> str:
    """Of a sequence of texts."""
    found = hashlib.sha256()
    for text in texts:
        found.update(repr(text).encode())
    return found.hexdigest()[:_LENGTH]
