"""From scores to the tokens that stay: structure first, then minimums, then a rule's choice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..config import Selection, TokenCompressionConfig
from ..device_copy import few_launches, to_device
from ..prompt import VisualSpan
from .batch import (
    BatchRule,
    diverse_of_plans,
    keep_planned,
    masks_of_plans,
    one_by_one,
    top_k_of_plans,
)
from .budgets import visual_token_budget
from .candidates import Candidates, no_embeddings
from .diverse import diverse
from .floors import groups_of_frames, groups_of_visuals
from .kept_tokens import KeptTokens
from .plan import Floor, SelectionPlan, everything, make_plan
from .structure import structure_tokens
from .top_k import top_k

Rule = Callable[[Candidates], Tensor]
"""Chooses `count` of the candidates that are not kept yet: int64 [count], distinct indices."""

RULES: Mapping[Selection, Rule] = {"top_k": top_k, "diverse": diverse}


def select_tokens(
    attention_mask: Tensor,
    visuals: Sequence[Sequence[VisualSpan]],
    scores: Tensor,
    configs: Sequence[TokenCompressionConfig],
    *,
    attention_mask_on_host: Tensor | None = None,
    inputs_embeds: Callable[[], Tensor] = no_embeddings,
    own_rule: Callable[[int, Candidates], Tensor | None] | None = None,
) -> KeptTokens:
    """Keep all text, and the visual tokens of each prompt that its setting chooses.

    The host waits for the device only if it must: for the scores with `top_p`, and for what was
    chosen if a prompt ends with a visual token.

    Args:
        attention_mask: bool [B, S], False on padding.
        visuals: For each prompt, its images and videos in order of appearance.
        scores: float [B, S]; only those of visual tokens are read.
        configs: The setting of each prompt.
        attention_mask_on_host: The mask on the CPU, if it is known there.
        inputs_embeds: Computes float [B, S, D], the prompts as they enter the language model.
            Rules that read no embeddings do without.
        own_rule: A scorer's own rule for a sample of the batch; where it returns None, the setting
            names the rule.

    Raises:
        ValueError: A score is negative, but `top_p` is set.
    """
    mask = attention_mask.cpu() if attention_mask_on_host is None else attention_mask_on_host
    none = torch.empty(0, dtype=torch.long)
    positions = [torch.cat([none, *(span.positions.cpu() for span in own)]) for own in visuals]
    if not any(len(own) for own in positions):
        return KeptTokens(attention_mask, tuple(mask.sum(dim=1).tolist()), mask)
    # What needs no scores stays.
    length = mask.shape[1]
    columns = pad_sequence(positions, batch_first=True, padding_value=length)  # [B, N]
    text = mask.clone()
    if len(set(map(len, positions))) > 1:
        # A column of its own takes what is after the end of a prompt.
        text = torch.nn.functional.pad(text, (0, 1))  # [B, S + 1]
    text = text.scatter_(1, columns, False)
    # The last token stays, whatever it is: the next token is predicted from it.
    last = torch.where(mask, torch.arange(length), -1).amax(dim=1, keepdim=True)  # [B, 1]
    is_last = columns == last  # [B, N]
    reads_scores = any(config.top_p is not None for config in configs)
    plans = None if reads_scores else _plans(visuals, configs, [None] * len(configs))
    masks = None if plans is None else masks_of_plans(plans, columns.shape[1])
    columns, sources, text, is_last_there, *masks_there = to_device(
        [columns, columns.clamp(max=length - 1), text, is_last, *(masks or ())], scores.device
    )
    own_scores = scores.gather(1, sources)  # [B, N]
    if plans is None:
        pairs = zip(own_scores.cpu(), positions, strict=True)
        plans = _plans(visuals, configs, [own[: len(places)] for own, places in pairs])
    rule = _batch_rule(
        configs,
        own_rule,
        functools.partial(_embeddings, inputs_embeds, positions, scores.device),
        scores.device,
    )
    kept = keep_planned(own_scores, plans, rule, None if masks is None else masks_there)  # [B, N]
    if is_last.any():
        kept = kept | is_last_there
    keep = text.scatter(1, columns, kept)[:, :length]  # [B, S]
    if is_last.any():
        return KeptTokens.read(keep)
    counts = mask.sum(dim=1).tolist()
    left = [
        count - len(plan) + plan.kept + plan.count
        for count, plan in zip(counts, plans, strict=True)
    ]
    return KeptTokens(keep, tuple(left))


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
    plan = _plan(visuals, config, None if config.top_p is None else scores.cpu())
    own = None if own_rule is None else lambda _, candidates: own_rule(candidates)
    rule = _batch_rule([config], own, lambda _: embed()[None], scores.device)
    return keep_planned(scores[None], [plan], rule)[0]


def kept_count(visual: VisualSpan, config: TokenCompressionConfig) -> int:
    """How many tokens `keep_of_visuals` keeps of an image or video that is alone in its prompt.

    Raises:
        ValueError: The number depends on the scores, because `top_p` is set.
    """
    if config.top_p is not None:
        raise ValueError(
            "With top_p, the number of kept tokens depends on their scores: leave it out."
        )
    plan = _plan([visual], config, None)
    return plan.kept + plan.count


def select_visual_tokens(
    scores: Tensor,
    budget: int,
    *,
    floors: Sequence[Floor] = (),
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
            that every group keeps (all, if it has fewer), those of earlier floors among them. The
            groups of a later floor hold whole groups of an earlier one.
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
    plan = make_plan(
        len(scores),
        budget,
        floors=floors,
        structure=structure,
        structure_share=structure_share,
        top_p=top_p,
        scores=None if top_p is None else scores.cpu(),
    )
    return keep_planned(
        scores[None], [plan], one_by_one(lambda _, candidates: rule(candidates), lambda _: embed())
    )[0]


def _plans(
    visuals: Sequence[Sequence[VisualSpan]],
    configs: Sequence[TokenCompressionConfig],
    scores: Sequence[Tensor | None],
) -> list[SelectionPlan]:
    """The plan of each prompt, as `_plan`."""
    return [_plan(*own) for own in zip(visuals, configs, scores, strict=True)]


def _plan(
    visuals: Sequence[VisualSpan], config: TokenCompressionConfig, scores: Tensor | None
) -> SelectionPlan:
    """The plan of one prompt; its scores, float [N] on the CPU, are read for `top_p` alone."""
    count = sum(len(span.positions) for span in visuals)
    if count < config.min_visual_tokens or count == 0:
        return everything(count)
    return make_plan(
        count,
        visual_token_budget(count, config),
        floors=_floors(visuals, config),
        structure=structure_tokens(visuals),
        structure_share=config.structure_share,
        top_p=config.top_p,
        scores=scores,
    )


def _floors(visuals: Sequence[VisualSpan], config: TokenCompressionConfig) -> list[Floor]:
    """The minimums of a setting, as `select_visual_tokens` takes them."""
    floors = []
    if config.min_tokens_per_frame > 0:
        floors.append((groups_of_frames(visuals), config.min_tokens_per_frame))
    if config.min_tokens_per_visual > 0:
        lengths = [len(span.positions) for span in visuals]
        floors.append((groups_of_visuals(lengths), config.min_tokens_per_visual))
    return floors


def _batch_rule(
    configs: Sequence[TokenCompressionConfig],
    own_rule: Callable[[int, Candidates], Tensor | None] | None,
    embed: Callable[[Sequence[int]], Tensor],
    device: torch.device,
) -> BatchRule:
    """The rule of a batch; `embed` computes float32 [b, N, D] for some of its prompts."""
    names = {config.selection_name for config in configs}
    if own_rule is None and names == {"top_k"}:
        return top_k_of_plans
    if own_rule is None and names == {"diverse"} and few_launches(device):
        return diverse_of_plans(lambda: embed(range(len(configs))))

    def rule(sample: int, candidates: Candidates) -> Tensor:
        chosen = None if own_rule is None else own_rule(sample, candidates)
        return RULES[configs[sample].selection_name](candidates) if chosen is None else chosen

    return one_by_one(rule, lambda sample: embed([sample])[0])


def _embeddings(
    inputs_embeds: Callable[[], Tensor],
    positions: Sequence[Tensor],
    device: torch.device,
    samples: Sequence[int],
) -> Tensor:
    """Embeddings of the visual tokens of some samples, float32 [b, N, D]."""
    embeds = inputs_embeds()  # [B, S, D], where a split model has its embedding
    length = embeds.shape[1]
    places = [positions[sample] + sample * length for sample in samples]
    (index,) = to_device([pad_sequence(places, batch_first=True)], embeds.device)  # [b, N]
    own = embeds.flatten(0, 1).index_select(0, index.flatten())  # [b * N, D]
    return own.unflatten(0, index.shape).float().to(device)
