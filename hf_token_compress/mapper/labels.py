"""From relevance to a training label, and the loss (arXiv 2506.01097): pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def relevance_label(
    relevance: Tensor, *, masked_share: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """The distribution over visual tokens that a mapper learns.

    The least relevant share is set to zero and the rest divided by its sum, as in the paper: raw
    relevance is so even that a softmax of it would be close to uniform.

    Args:
        relevance: float [N], one value per visual token; negative values count as zero.
        masked_share: Share of the tokens that is set to zero, in [0, 1).
        temperature: The kept values are raised to 1 / temperature first; below 1 sharpens.

    Returns:
        float32 [N], sums to 1.

    Raises:
        ValueError: An option is out of range, a value is NaN or infinite, or no relevance is left.
    """
    if not 0.0 <= masked_share < 1.0:
        raise ValueError(f"masked_share must be in [0, 1), but it is {masked_share}.")
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, but it is {temperature}.")
    if not relevance.isfinite().all():
        raise ValueError(
            "The relevance holds NaN or infinite values: collect it again, in float32 or bfloat16."
        )
    values = relevance.double().clamp(min=0.0)
    kept = len(values) - int(masked_share * len(values))
    # A stable sort, so that ties are cut the same way everywhere.
    order = torch.sort(values, descending=True, stable=True).indices
    label = torch.zeros_like(values)
    label[order[:kept]] = values[order[:kept]]
    highest = label.max() if len(label) else label.sum()
    if highest <= 0.0:
        raise ValueError(
            "The relevance is zero for every visual token: leave this sample out, as its answer "
            "rests on none of them."
        )
    label = (label / highest) ** (1.0 / temperature)
    return (label / label.sum()).float()


def label_divergence(labels: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """KL(label ‖ softmax(logits)) of every prompt.

    Args:
        labels: For each of P prompts, float [N] that sums to 1; N may differ.
        logits: For each prompt, float [N].

    Returns:
        float32 [P].
    """
    divergences = []
    for label, logit in zip(labels, logits, strict=True):
        log_prediction = logit.float().log_softmax(dim=0)
        divergences.append((torch.special.xlogy(label, label) - label * log_prediction).sum())
    return torch.stack(divergences)
