"""From scores to the tokens that stay: structure first, then minimums, then a rule's choice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..config import Selection, TokenCompressionConfig
from ..prompt import VisualSpan
from .budgets import top_p_budget, visual_token_budget
from .candidates import Candidates, no_embeddings
from .diverse import diverse
from .floors import best_of_each_group, groups_of_frames, groups_of_visuals
from .structure import spread_evenly, structure_tokens
from .top_k import top_k

Rule = Callable[[Candidates], Tensor]
"""Chooses `count` of the candidates that are not kept yet: int64 [count], distinct indices."""

RULES: Mapping[Selection, Rule] = {"top_k": top_k, "diverse": diverse}


def select_tokens(
    attention_mask: Tensor,
    visuals: Iterable[Sequence[VisualSpan]],
    scores: Tensor | None,
    configs: Sequence[TokenCompressionConfig],
    *,
    inputs_embeds: Callable[[], Tensor] = no_embeddings,
    own_rule: Callable[[int, Candidates], Tensor | None] | None = None,
) -> Tensor:
    """Keep all text, and the visual tokens of each prompt that its setting chooses.

    Args:
        attention_mask: bool [B, S], False on padding.
        visuals: For each prompt, its images and videos in order of appearance.
        scores: float [B, S]; only those of visual tokens are read. None keeps everything.
        configs: The setting of each prompt.
        inputs_embeds: Computes float [B, S, D], the prompts as they enter the language model.
            Rules that read no embeddings do without.
        own_rule: A scorer's own rule for a sample of the batch; where it returns None, the setting
            names the rule.

    Returns:
        bool [B, S], True on the tokens to keep.

    Raises:
        ValueError: A score is negative, but `top_p` is set.
    """
    keep = attention_mask.clone()
    if scores is None:
        return keep
    for sample, (spans, config) in enumerate(zip(visuals, configs, strict=True)):
        if all(len(span.positions) == 0 for span in spans):
            continue
        positions = torch.cat([span.positions for span in spans])  # [N]
        kept = keep_of_visuals(
            spans,
            scores[sample, positions],
            config,
            embed=functools.partial(_embeddings, inputs_embeds, sample, positions),
            own_rule=None if own_rule is None else functools.partial(own_rule, sample),
        )
        # The last token stays, whatever it is: the next token is predicted from it.
        last = attention_mask[sample].nonzero()[-1]
        keep[sample, positions] = kept | (positions == last)
    return keep


def keep_of_visuals(
    visuals: Sequence[VisualSpan],
    scores: Tensor,
    config: TokenCompressionConfig,
    *,
    embed: Callable[[], Tensor] = no_embeddings,
    own_rule: Callable[[Candidates], Tensor | None] | None = None,
) -> Tensor:
    """The visual tokens of one prompt that its setting keeps, bool [N].

    Args:
        visuals: Its images and videos in order of appearance, at least one.
        scores: float [N].
        config: Its setting.
        embed: Computes float32 [N, D], the tokens as they enter the language model.
        own_rule: A scorer's own rule; where it returns None, the setting names the rule.

    Raises:
        ValueError: A score is negative, but `top_p` is set.
    """
    if len(scores) < config.min_visual_tokens:
        return torch.ones_like(scores, dtype=torch.bool)
    return select_visual_tokens(
        scores,
        visual_token_budget(len(scores), config),
        floors=_floors(visuals, config),
        structure=structure_tokens(visuals),
        structure_share=config.structure_share,
        top_p=config.top_p,
        rule=functools.partial(_choose, RULES[config.selection_name], own_rule),
        embed=embed,
    )


def kept_count(visual: VisualSpan, config: TokenCompressionConfig) -> int:
    """How many tokens `keep_of_visuals` keeps of an image or video that is alone in its prompt.

    Raises:
        ValueError: The number depends on the scores, because `top_p` is set.
    """
    if config.top_p is not None:
        raise ValueError(
            "With top_p, the number of kept tokens depends on their scores: leave it out."
        )
    count = len(visual.positions)
    if count < config.min_visual_tokens:
        return count
    least = _least_kept_of_all(_floors([visual], config))
    return min(count, max(visual_token_budget(count, config), least))


def select_visual_tokens(
    scores: Tensor,
    budget: int,
    *,
    floors: Sequence[tuple[Tensor, int]] = (),
    structure: Tensor | None = None,
    structure_share: float = 0.0,
    top_p: float | None = None,
    rule: Rule = top_k,
    embed: Callable[[], Tensor] = no_embeddings,
) -> Tensor:
    """Keep visual tokens of one prompt.

    Structure tokens come first, within their share of the budget and what the minimums leave of it.
    Then every image, video and frame keeps its minimum of its best-scored other tokens. The rule
    spends the rest.

    Args:
        scores: float [N], one score per visual token of the prompt, in order.
        budget: Number of tokens to keep in all. Minimums may exceed it.
        floors: int64 [N] each, which group each token belongs to, negative for none; and the tokens
            that every group keeps (all, if it has fewer), those of earlier floors among them.
        structure: int64 [n], ascending, which tokens are structure.
        structure_share: Largest share of the budget that goes to them first.
        top_p: Keep the fewest tokens whose scores sum to this share of the total, if they are
            fewer than the budget.
        rule: Chooses among the tokens that are not kept yet.
        embed: Computes float32 [N, D], the tokens as they enter the language model.

    Returns:
        bool [N], True on the tokens to keep.

    Raises:
        ValueError: A score is negative, but `top_p` is set.
    """
    device = scores.device
    # Any choice gives an only group its minimum.
    several = [(groups, floor) for groups, floor in floors if bool((groups != groups[0]).any())]
    least = _least_kept_of_all(floors)
    needed = max(least, sum(_least_kept(groups, floor) for groups, floor in several))
    limit = budget
    if top_p is not None:
        budget = min(limit, top_p_budget(scores, top_p))
    keep = torch.zeros_like(scores, dtype=torch.bool)  # [N]
    # 1. Structure.
    most = max(0, min(int(structure_share * budget), budget - needed))
    if structure is not None and len(structure) > 0 and most > 0:
        keep[spread_evenly(structure, most).to(device)] = True
        if top_p is not None:
            budget = min(limit, top_p_budget(scores, top_p, keep))
    # 2. The minimum of each image, video and frame, which structure does not count towards, but
    # what frames keep counts towards that of their video.
    others = ~keep
    for groups, floor in several:
        own = torch.where(others, groups.to(device), -1)
        keep |= best_of_each_group(scores.masked_fill(keep, torch.inf), own, floor)
    # 3. The rule's choice of the rest.
    total = max(budget, least)
    if total >= len(scores):
        return torch.ones_like(keep)
    count = total - int(keep.sum())
    if count > 0:
        keep[rule(Candidates(scores, keep.clone(), count, embed))] = True
    return keep


def _floors(
    visuals: Sequence[VisualSpan], config: TokenCompressionConfig
) -> list[tuple[Tensor, int]]:
    """The minimums of a setting, as `select_visual_tokens` takes them."""
    floors = []
    if config.min_tokens_per_frame > 0:
        floors.append((groups_of_frames(visuals), config.min_tokens_per_frame))
    if config.min_tokens_per_visual > 0:
        lengths = [len(span.positions) for span in visuals]
        floors.append((groups_of_visuals(lengths), config.min_tokens_per_visual))
    return floors


def _least_kept_of_all(floors: Sequence[tuple[Tensor, int]]) -> int:
    """Tokens that keep the largest of the minimums."""
    return max((_least_kept(groups, floor) for groups, floor in floors), default=0)


def _least_kept(groups: Tensor, floor: int) -> int:
    """Tokens that keep the minimum of every group."""
    _, sizes = groups[groups >= 0].unique(return_counts=True)
    return int(sizes.clamp(max=floor).sum())


def _choose(
    rule: Rule,
    own_rule: Callable[[Candidates], Tensor | None] | None,
    candidates: Candidates,
) -> Tensor:
    chosen = None if own_rule is None else own_rule(candidates)
    return rule(candidates) if chosen is None else chosen


def _embeddings(inputs_embeds: Callable[[], Tensor], sample: int, positions: Tensor) -> Tensor:
    embeds = inputs_embeds()  # [B, S, D], where a split model has its embedding
    return embeds[sample, positions.to(embeds.device)].float().to(positions.device)  # [N, D]
