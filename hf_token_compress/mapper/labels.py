"""Training labels made of relevance, and their loss (arXiv 2506.01097)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_number


def relevance_label(
    relevance: Tensor, *, mask_ratio: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """Turn relevance into a distribution over the visual tokens, the target of a mapper.

    The least relevant tokens are set to zero and the rest is divided by its sum, as in the paper.
    Raw relevance is so even that a softmax of it would be almost uniform.

    Args:
        relevance: float [N], one value per visual token; negative values count as zero.
        mask_ratio: Share of the tokens to set to zero, in [0, 1).
        temperature: The other values are raised to 1 / temperature, above 0; below 1 sharpens.

    Returns:
        float32 [N], sums to 1.

    Raises:
        TypeError: An option is not a number.
        ValueError: An option is out of range, or the relevance is not finite or nowhere positive.
    """
    check_number("mask_ratio", mask_ratio, "[0, 1)")
    check_number("temperature", temperature, "(0, inf)")
    if not relevance.isfinite().all():
        raise ValueError(
            "The relevance has NaN or infinite values: collect it again, in float32 or bfloat16."
        )
    values = relevance.double().clamp(min=0.0)
    # Keep the most relevant tokens. The sort is stable: ties break the same way everywhere.
    kept = len(values) - int(mask_ratio * len(values))
    order = torch.sort(values, descending=True, stable=True).indices
    label = torch.zeros_like(values)
    label[order[:kept]] = values[order[:kept]]
    highest = label.max() if len(label) else label.sum()
    if highest <= 0.0:
        raise ValueError(
            "The relevance is zero for every visual token: leave this sample out, its answer "
            "depends on none of them."
        )
    # Scale to a maximum of 1 first, so that the power does not overflow.
    label = (label / highest) ** (1.0 / temperature)
    return (label / label.sum()).float()


def label_divergence(labels: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """KL divergence KL(label ‖ softmax(logits)) of each prompt.

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
    return torch.stack(divergences)  # [P]
