"""Relevance as the equations stand: stored attention maps, their gradients, the whole matrix R."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Factor = Callable[[Tensor], Tensor]


def paper_factor(weighted: Tensor) -> Tensor:
    """E_h[(A ⊙ ∂y/∂A)^+]: [heads, S, S] → [S, S]."""
    return weighted.clamp(min=0).mean(0)


def stored_maps(model: Any, inputs: dict[str, Any], row: int, token: int) -> list[Tensor]:
    """A ⊙ ∂y/∂A of every layer, [heads, S, S], for the raw logit of a token.

    The model must use eager attention, and the inputs be one prompt without padding.
    """
    output = model(**inputs, output_attentions=True, use_cache=False)
    target = output.logits[0, row, token]
    gradients = torch.autograd.grad(target, output.attentions)
    return [
        (attention * gradient)[0].detach()
        for attention, gradient in zip(output.attentions, gradients, strict=True)
    ]


def relevance_matrix(maps: list[Tensor]) -> Tensor:
    """R ← R + E_h[(A ⊙ ∂y/∂A)^+]·R, from R = I and the first layer on."""
    matrix = torch.eye(maps[0].shape[-1])
    for weighted in maps:
        matrix = matrix + paper_factor(weighted) @ matrix
    return matrix


def edge_sums(maps: list[Tensor], rows: Tensor, magnitude: Callable[[Tensor], Tensor]) -> Tensor:
    """Σ over layers and rows of E_h[f(A ⊙ ∂y/∂A)]: [S]."""
    return sum(magnitude(weighted).mean(0)[rows].sum(0) for weighted in maps)


def normalized_matrix(maps: list[Tensor]) -> Tensor:
    """R ← ½·(I + N)·R with the rows of the factor scaled to one."""
    matrix = torch.eye(maps[0].shape[-1])
    for weighted in maps:
        factor = paper_factor(weighted)
        total = factor.sum(-1, keepdim=True)
        factor = torch.where(total > 0, factor / total, torch.zeros_like(factor))
        matrix = (matrix + factor @ matrix) / 2
    return matrix
