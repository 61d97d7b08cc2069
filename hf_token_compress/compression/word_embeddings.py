"""Statistics of a model's word embeddings, computed once per model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..word_statistics import WordStatistics
from .precision import without_autocast
from .twin import make_twin


@dataclass(frozen=True)
class _Known:
    """Statistics, and which weights and adapters they are of."""

    state: tuple[Any, ...]
    statistics: WordStatistics


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def word_statistics(model: Any) -> WordStatistics:
    """Mean and covariance of the embeddings of all ids of the vocabulary.

    They are kept with the embeddings until these, or their adapters, are changed. V ids of D
    dimensions take V · D² / 2 multiplications, and D² floats of memory.
    """
    embeddings: nn.Module = model.get_input_embeddings()
    weights = [_version(own) for own in embeddings.parameters()]
    state = (*weights, *map(_adapters, embeddings.modules()))
    known = _KNOWN.get(embeddings)
    if known is None or known.state != state:
        known = _KNOWN[embeddings] = _Known(state, _statistics(embeddings))
    return known.statistics


def _statistics(embeddings: Any) -> WordStatistics:
    weight = embeddings.weight
    count = len(weight)
    # Accelerate moves inputs to where offloaded weights are loaded.
    ids = torch.arange(count, device="cpu" if weight.is_meta else weight.device)
    twin = make_twin(embeddings, samples=1)
    with torch.no_grad(), without_autocast(), twin.running():
        return WordStatistics.over(ids, lambda chunk: twin.module(chunk[None])[0])


def _version(weight: Tensor) -> tuple[Any, ...]:
    """Differs if a weight is replaced or written to; weights of inference mode tell no writes."""
    return id(weight), weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _adapters(module: nn.Module) -> tuple[Any, ...]:
    """Which adapters of PEFT a module uses."""
    names = tuple(getattr(module, "active_adapters", ()))
    return names, getattr(module, "disable_adapters", False)
