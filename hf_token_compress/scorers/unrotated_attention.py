"""Attention of the instruction in decoder layer 0, without rotary position embeddings."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from ..prompt import MultimodalPrompt
from ..scoring_layer import ScoringLayer
from .attention import instruction_attention
from .base import Scorer


class UnrotatedAttentionScorer(Scorer):
    """Mean attention of the instruction tokens in layer 0, as if all tokens were in one place.

    RoPE makes a token that is close to the question count more, whatever it shows. HAWK (arXiv
    2604.07812) compares queries and keys before RoPE; here the attention to all tokens, text
    included, is computed from these.
    """

    needs = frozenset({"unrotated_layer"})

    @override
    def score(self, prompt: MultimodalPrompt, *, unrotated_layer: ScoringLayer) -> Tensor:
        return instruction_attention(unrotated_layer)
