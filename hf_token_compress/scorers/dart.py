"""DART: a few pivots, and the tokens that duplicate them least."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from ..checks import check_count
from ..prompt import MultimodalPrompt
from ..selection import Candidates
from .base import Scorer
from .visual_tokens import score_each_prompt, unit_embeddings


class DartScorer(Scorer):
    """Tokens least similar to pivots, which are the visual and text tokens of the largest norms.

    From DART (https://arxiv.org/abs/2502.11494), before layer 0: norms and cosines are those of the
    embeddings, where the paper takes keys and hidden states of layer 2. The visual pivots stay.
    Each pivot in turn, visual ones first, adds an equal number of tokens with the lowest cosine to
    it. The score is the L1 norm.

    Args:
        visual_pivots: Visual tokens that are pivots, at least 0.
        text_pivots: Text tokens that are pivots, at least 0; together at least 1.

    Raises:
        TypeError: An option is not a whole number.
        ValueError: It is out of range.
    """

    def __init__(self, visual_pivots: int = 4, text_pivots: int = 4) -> None:
        check_count("visual_pivots", visual_pivots, at_least=0)
        check_count("text_pivots", text_pivots, at_least=0)
        check_count("visual_pivots + text_pivots", visual_pivots + text_pivots, at_least=1)
        self.visual_pivots = visual_pivots
        self.text_pivots = text_pivots

    @override
    def score(self, prompt: MultimodalPrompt) -> Tensor:
        return score_each_prompt(
            prompt, lambda sample, positions: _norms(prompt, sample, positions)
        )

    @override
    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        unit = normalize(candidates.embeddings, dim=-1)  # [N, D]
        # Visual pivots stay.
        visual = _best(candidates.scores, self.visual_pivots)
        chosen = visual[~candidates.kept[visual]][: candidates.count]
        taken = candidates.kept.index_fill(0, chosen, True)
        # Text pivots.
        text = (prompt.attention_mask & ~prompt.visual_mask)[sample].nonzero().flatten()
        text = text[_best(_norms(prompt, sample, text), self.text_pivots).to(text.device)]
        pivots = torch.cat([unit[visual], unit_embeddings(prompt, sample, text).to(unit)])
        # Each pivot in turn adds the tokens that are least like it.
        share = math.ceil((candidates.count - len(chosen)) / max(len(pivots), 1))
        parts = [chosen]
        missing = candidates.count - len(chosen)
        for cosine in pivots @ unit.T:  # [N]
            added = cosine.masked_fill(taken, float("inf")).argsort(stable=True)
            added = added[: min(share, missing)]
            taken[added] = True
            parts.append(added)
            missing -= len(added)
        return torch.cat(parts)


def _norms(prompt: MultimodalPrompt, sample: int, positions: Tensor) -> Tensor:
    """L1 norms of a prompt's tokens, int64 [N], float32 [N]."""
    embeds = prompt.inputs_embeds
    return embeds[sample, positions.to(embeds.device)].float().abs().sum(dim=-1)


def _best(values: Tensor, count: int) -> Tensor:
    """Indices of the largest values, int64 [count]; the earlier ones between equals."""
    return values.argsort(descending=True, stable=True)[:count]
