"""Relevance as the equations define it: stored attention maps, their gradients, the whole R."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tiny_models import IMAGE, VIDEO
from torch import Tensor

ATTENTION_RULES = (
    "edges_absolute",
    "edges_net",
    "edges_positive",
    "gae",
    "gae_absolute",
    "gae_normalized",
    "last_layer",
    "rollout",
)
"""The rules that read attention maps."""


def expected_relevance(
    model: Any, inputs: dict[str, Tensor], answer: Tensor, rule: str, answer_type: int = 0
) -> Tensor:
    """What each token of an answer depends on, [T, N] over the visual tokens of its prompt.

    Args:
        model: A model with eager attention.
        inputs: One prompt without padding.
        answer: int64 [T].
        rule: One of `ATTENTION_RULES`.
        answer_type: The `token_type_ids` of the answer.
    """
    first = inputs["input_ids"].shape[1] - 1
    longer = _with_answer(inputs, answer, answer_type)
    visual = torch.isin(longer["input_ids"][0], torch.tensor([IMAGE, VIDEO]))
    rows = [
        _row(rule, *stored_maps(model, longer, first + number, token), first + number, ~visual)
        for number, token in enumerate(answer.tolist())
    ]
    return torch.stack(rows)[:, visual]


def _with_answer(inputs: dict[str, Tensor], answer: Tensor, answer_type: int) -> dict[str, Tensor]:
    behind = answer[None, :-1]
    extra = {
        "input_ids": behind,
        "attention_mask": torch.ones_like(behind),
        "mm_token_type_ids": torch.zeros_like(behind),
        "moe_mm_token_type_ids": torch.zeros_like(behind),
        "token_type_ids": torch.full_like(behind, answer_type),
    }
    return {
        name: torch.cat([value, extra[name]], dim=1) if name in extra else value
        for name, value in inputs.items()
    }


def _row(
    rule: str, attentions: list[Tensor], weighted: list[Tensor], position: int, text: Tensor
) -> Tensor:
    """Relevance of every token for what one position predicts, [S]."""
    if rule == "last_layer":
        return attentions[-1].mean(0)[position]
    if rule == "rollout":
        matrix = torch.eye(len(text))
        for attention in attentions:
            matrix = (matrix + attention.mean(0) @ matrix) / 2
        return matrix[position]
    if rule == "gae_normalized":
        return normalized_matrix(weighted)[position]
    magnitude = torch.abs if rule.endswith("absolute") else _positive
    if rule.startswith("gae"):
        return relevance_matrix(weighted, magnitude)[position]
    if rule == "edges_net":
        return edge_sums(weighted, text, lambda edges: edges).abs()
    return edge_sums(weighted, text, magnitude)


def stored_maps(
    model: Any, inputs: dict[str, Any], position: int, token: int
) -> tuple[list[Tensor], list[Tensor]]:
    """A and A ⊙ ∂y/∂A of every layer, [heads, S, S] each, for the logit of a token at a position.

    The model must use eager attention, and the inputs must be one prompt without padding.
    """
    output = model(**inputs, output_attentions=True, use_cache=False)
    gradients = torch.autograd.grad(output.logits[0, position, token], output.attentions)
    attentions = [attention[0].detach() for attention in output.attentions]
    return attentions, [
        attention * gradient[0] for attention, gradient in zip(attentions, gradients, strict=True)
    ]


def weighted_maps(model: Any, inputs: dict[str, Any], position: int, token: int) -> list[Tensor]:
    """A ⊙ ∂y/∂A of every layer, as in `stored_maps`."""
    return stored_maps(model, inputs, position, token)[1]


def relevance_matrix(
    maps: list[Tensor], magnitude: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """R ← R + E_h[f(A ⊙ ∂y/∂A)]·R, from R = I and the first layer up; f is the positive part."""
    matrix = torch.eye(maps[0].shape[-1])
    for weighted in maps:
        matrix = matrix + (magnitude or _positive)(weighted).mean(0) @ matrix
    return matrix


def normalized_matrix(maps: list[Tensor]) -> Tensor:
    """R ← ½·(I + N)·R, where the weights of each query in N sum to one."""
    matrix = torch.eye(maps[0].shape[-1])
    for weighted in maps:
        factor = _positive(weighted).mean(0)
        total = factor.sum(-1, keepdim=True)
        factor = torch.where(total > 0, factor / total, torch.zeros_like(factor))
        matrix = (matrix + factor @ matrix) / 2
    return matrix


def edge_sums(maps: list[Tensor], queries: Tensor, magnitude: Callable[[Tensor], Tensor]) -> Tensor:
    """Σ over layers and queries of E_h[f(A ⊙ ∂y/∂A)]: [S]."""
    return sum(magnitude(weighted).mean(0)[queries].sum(0) for weighted in maps)


def _positive(weighted: Tensor) -> Tensor:
    return weighted.clamp(min=0)
