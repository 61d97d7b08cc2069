"""PriorTR: attention of the instruction compared with that of a token that cannot see it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .attention import AttentionScorer, instruction_attention

_SMALLEST_SHARE = 1e-9


class PriorTRScorer(AttentionScorer):
    """P log(P / Q): how much more the instruction attends to a token than attention does anyway.

    From PriorTR (https://arxiv.org/abs/2606.24156). P is the attention of the instruction tokens to
    the visual tokens, Q that of the token right after the last visual token, which cannot see the
    instruction (that last visual token itself where no other follows). Both are shares of the
    attention to visual tokens, averaged over heads.

    Args:
        scoring_depth: Decoder layers that run on the whole prompt first, at least 0. The paper
            takes an early layer, 0 costs least.

    Raises:
        TypeError: `scoring_depth` is not a whole number.
        ValueError: It is below 0.
    """

    @override
    def query_mask(self, prompt: MultimodalPrompt) -> Tensor:
        return prompt.query_mask | after_visuals(prompt)

    @override
    def score(self, prompt: MultimodalPrompt, *, scoring_layer: ScoringLayer) -> Tensor:
        conditioned = self._shares(scoring_layer, prompt, prompt.query_mask)  # [B, S]
        prior = self._shares(scoring_layer, prompt, after_visuals(prompt))  # [B, S]
        return conditioned * (conditioned / prior).log()

    def _shares(self, layer: ScoringLayer, prompt: MultimodalPrompt, queries: Tensor) -> Tensor:
        """Shares of the attention to visual tokens, from some of the layer's queries, [B, S]."""
        own = queries.to(layer.key.device)[layer.sample, layer.position]  # [Q]
        part = replace(
            layer,
            query=layer.query[own],
            sample=layer.sample[own],
            position=layer.position[own],
            key_mask=layer.key_mask & prompt.visual_mask.to(layer.key.device),
            mask=None if layer.mask is None else layer.mask[own],
            sinks=None,  # they take the same share from every token
            query_counts=None,
        )
        return instruction_attention(part).clamp(min=_SMALLEST_SHARE)


def after_visuals(prompt: MultimodalPrompt) -> Tensor:
    """The token right after the last visual token of each prompt, bool [B, S].

    It is the last visual token itself where no token follows. Prompts without images have none.
    """
    visual, present = prompt.visual_mask, prompt.attention_mask
    place = torch.arange(visual.shape[1], device=visual.device)  # [S]
    last = torch.where(visual, place, -1).amax(dim=1, keepdim=True)  # [B, 1]
    follows = (present & (place == last + 1)).any(dim=1, keepdim=True)  # [B, 1]
    return (place == last + follows.long()) & visual.any(dim=1, keepdim=True)
