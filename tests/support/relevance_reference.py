"""Relevance as the equations define it: stored attention maps, their gradients, the whole R."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def weighted_maps(model: Any, inputs: dict[str, Any], position: int, token: int) -> list[Tensor]:
    """A ⊙ ∂y/∂A of every layer, [heads, S, S], for the logit of a token at a position.

    The model must use eager attention, and the inputs must be one prompt without padding.
    """
    output = model(**inputs, output_attentions=True, use_cache=False)
    gradients = torch.autograd.grad(output.logits[0, position, token], output.attentions)
    return [
        (attention * gradient)[0].detach()
        for attention, gradient in zip(output.attentions, gradients, strict=True)
    ]


def relevance_matrix(maps: list[Tensor]) -> Tensor:
    """R ← R + E_h[(A ⊙ ∂y/∂A)^+]·R, from R = I and the first layer up."""
    matrix = torch.eye(maps[0].shape[-1])
    for weighted in maps:
        matrix = matrix + _mean_of_positive(weighted) @ matrix
    return matrix


def normalized_matrix(maps: list[Tensor]) -> Tensor:
    """R ← ½·(I + N)·R, where the weights of each query in N sum to one."""
    matrix = torch.eye(maps[0].shape[-1])
    for weighted in maps:
        factor = _mean_of_positive(weighted)
        total = factor.sum(-1, keepdim=True)
        factor = torch.where(total > 0, factor / total, torch.zeros_like(factor))
        matrix = (matrix + factor @ matrix) / 2
    return matrix


def edge_sums(maps: list[Tensor], queries: Tensor, magnitude: Callable[[Tensor], Tensor]) -> Tensor:
    """Σ over layers and queries of E_h[f(A ⊙ ∂y/∂A)]: [S]."""
    return sum(magnitude(weighted).mean(0)[queries].sum(0) for weighted in maps)


def _mean_of_positive(weighted: Tensor) -> Tensor:
    """E_h[(A ⊙ ∂y/∂A)^+]: [heads, S, S] → [S, S]."""
    return weighted.clamp(min=0).mean(0)
