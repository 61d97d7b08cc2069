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


def keep_planned(scores: Tensor, plans: Sequence[SelectionPlan], rule: BatchRule) -> Tensor:
    """The visual tokens that stay of P prompts.

    Args:
        scores: float [P, N], those of each prompt first; what follows is not read.
        plans: The plan of each prompt.
        rule: Chooses what they leave to it.

    Returns:
        bool [P, N], False after the end of a prompt.
    """
    lengths = [len(plan) for plan in plans]
    first = _padded([plan.first for plan in plans], False)  # [P, N]
    after_end = past_end(lengths, scores.shape[1])  # [P, N]
    # The floors of each prompt in turn; a prompt with fewer has no groups in the last ones.
    none = [torch.full((length,), -1) for length in lengths]
    floors = [
        (
            _padded(
                [empty if own is None else own[0] for own, empty in zip(each, none, strict=True)],
                -1,
            ),
            torch.tensor([[0 if own is None else own[1]] for own in each]),
        )
        for each in zip_longest(*(plan.floors for plan in plans))
    ]
    first, after_end, *others = to_device(
        [first, after_end, *(part for floor in floors for part in floor)], scores.device
    )
    if min(lengths) < scores.shape[1]:
        scores = scores.masked_fill(after_end, -torch.inf)
    kept = first if any(plan.kept or plan.floors for plan in plans) else None
    for groups, floor in zip(others[::2], others[1::2], strict=True):
        assert kept is not None
        ranked = scores.masked_fill(kept, torch.inf)
        kept = kept | best_of_each_group(ranked, groups, floor)
    if any(plan.count for plan in plans):
        return rule(scores, kept, plans)
    return first if kept is None else kept


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
