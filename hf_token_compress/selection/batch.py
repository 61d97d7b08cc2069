"""Choose the visual tokens of a batch of prompts by their plans, without waiting for the device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import zip_longest

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..device_copy import to_device
from ..padding import past_end
from .candidates import Candidates
from .diverse import diverse_batch
from .floors import best_of_each_group
from .plan import SelectionPlan

BatchRule = Callable[[Tensor, Tensor | None, Sequence[SelectionPlan]], Tensor]
"""Chooses what plans leave to it: from scores, float [P, N] with -inf after the end of a prompt,
and what is kept already, bool [P, N] or None, to what is kept with its choice, bool [P, N]."""


def masks_of_plans(plans: Sequence[SelectionPlan], width: int) -> list[Tensor]:
    """What the plans of P prompts mark, on the CPU; `keep_planned` takes copies of them.

    Args:
        plans: The plan of each prompt.
        width: N, what the prompts are padded to.

    Returns:
        bool [P, N], tokens that come first, if any plan has some; bool [P, N], True after the end
        of a prompt, if one is shorter; and for each minimum its groups, int64 [P, N], and its
        tokens of each group, int64 [P, 1].
    """
    lengths = [len(plan) for plan in plans]
    masks = []
    if _has_first(plans):
        masks.append(_padded([plan.first for plan in plans], False))
    if min(lengths) < width:
        masks.append(past_end(lengths, width))
    # The floors of each prompt in turn; a prompt with fewer has no groups in the last ones.
    none = [torch.full((length,), -1) for length in lengths]
    for each in zip_longest(*(plan.floors for plan in plans)):
        groups = [empty if own is None else own[0] for own, empty in zip(each, none, strict=True)]
        masks.append(_padded(groups, -1))
        masks.append(torch.tensor([[0 if own is None else own[1]] for own in each]))
    return masks


def keep_planned(
    scores: Tensor,
    plans: Sequence[SelectionPlan],
    rule: BatchRule,
    masks: Sequence[Tensor] | None = None,
) -> Tensor:
    """The visual tokens that stay of P prompts.

    Args:
        scores: float [P, N], those of each prompt first; what follows is not read.
        plans: The plan of each prompt.
        rule: Chooses what they leave to it.
        masks: Those of `masks_of_plans` on the device of the scores, if they are there.

    Returns:
        bool [P, N], False after the end of a prompt.
    """
    if masks is None:
        masks = to_device(masks_of_plans(plans, scores.shape[1]), scores.device)
    left = iter(masks)
    kept = next(left) if _has_first(plans) else None
    if min(len(plan) for plan in plans) < scores.shape[1]:
        scores = scores.masked_fill(next(left), -torch.inf)
    for groups, floor in zip(left, left, strict=True):
        assert kept is not None
        ranked = scores.masked_fill(kept, torch.inf)
        kept = kept | best_of_each_group(ranked, groups, floor)
    if kept is None or any(plan.count for plan in plans):
        return rule(scores, kept, plans)
    return kept


def _has_first(plans: Sequence[SelectionPlan]) -> bool:
    """Whether anything is kept before the rule chooses; a rule alone is asked for some token."""
    return any(plan.kept or plan.floors for plan in plans) or not any(plan.count for plan in plans)


def top_k_of_plans(scores: Tensor, kept: Tensor | None, plans: Sequence[SelectionPlan]) -> Tensor:
    """The best tokens that are not kept yet; between equal scores the earlier one."""
    if kept is not None:
        scores = scores.masked_fill(kept, -torch.inf)
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices  # [P, N]
    # What is kept already comes last of a prompt, and behind it what is after its end.
    ranks = torch.arange(order.shape[1])
    counts, held, ends = (
        torch.tensor([[plan.count, plan.kept, len(plan)] for plan in plans]).unsqueeze(-1).unbind(1)
    )  # [P, 1] each
    stays = (ranks < counts) | (ranks >= ends - held) & (ranks < ends)  # [P, N]
    (stays,) = to_device([stays], scores.device)
    return torch.empty_like(stays).scatter_(1, order, stays)


def diverse_of_plans(embed: Callable[[], Tensor]) -> BatchRule:
    """The rule `diverse` for all prompts together.

    Args:
        embed: Computes the embeddings of their visual tokens, float32 [P, N, D], anything finite
            after the end of a prompt.
    """

    def of_batch(scores: Tensor, kept: Tensor | None, plans: Sequence[SelectionPlan]) -> Tensor:
        held = torch.zeros_like(scores, dtype=torch.bool) if kept is None else kept
        chosen = diverse_batch(
            scores,
            held,
            [plan.kept for plan in plans],
            [plan.count for plan in plans],
            [len(plan) for plan in plans],
            embed(),
        )
        return chosen if kept is None else chosen | kept

    return of_batch


def one_by_one(
    rule: Callable[[int, Candidates], Tensor], embed: Callable[[int], Tensor]
) -> BatchRule:
    """A rule for one prompt after the other.

    Args:
        rule: Chooses from the candidates of one of the P prompts, int64 [count].
        embed: Computes the embeddings of its visual tokens, float32 [N, D].
    """

    def of_batch(scores: Tensor, kept: Tensor | None, plans: Sequence[SelectionPlan]) -> Tensor:
        chosen = torch.zeros_like(scores, dtype=torch.bool)
        for number, plan in enumerate(plans):
            if plan.count == 0:
                continue
            own = scores[number, : len(plan)]
            held = torch.zeros_like(own, dtype=torch.bool)
            if kept is not None:
                held |= kept[number, : len(plan)]
            candidates = Candidates(own, held, plan.count, functools.partial(embed, number))
            chosen[number].index_fill_(0, rule(number, candidates), True)
        return chosen if kept is None else chosen | kept

    return of_batch


def _padded(masks: Sequence[Tensor], value: float) -> Tensor:
    return pad_sequence(list(masks), batch_first=True, padding_value=value)
