"""The oracle: keep the visual tokens that the model's own answer depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ..compression.inputs import TOKEN_TYPES
from ..prompt import MultimodalPrompt
from ..scorers import Scorer
from .explain import Targets, encode_once, explained_family, greedy_answers, relevance
from .rules import DEFAULT_RULE

# Inputs with one entry per token, whose last two axes are [B, S].
_TOKEN_INPUTS = ("input_ids", "attention_mask", "position_ids", *TOKEN_TYPES)


class RelevanceScorer(Scorer):
    """Relevance for the model's own greedy answer to the whole prompt.

    It answers the whole prompt and explains that answer, which costs more than compression saves:
    use it as an upper bound for a mapper that is trained on the same labels. For an empty answer,
    it explains the token that ends it.

    Args:
        rule: Name of a rule, one of `hf_token_compress.relevance.available_rules()`.
        rule_options: Keyword arguments of the rule.
        max_new_tokens: Length at which the answer is cut off.
        targets: "per_token" or "sum".
        recursive: Explain, remove the least relevant tokens, and explain again.
    """

    needs = frozenset({"model"})

    def __init__(
        self,
        rule: str = DEFAULT_RULE,
        rule_options: Mapping[str, Any] | None = None,
        max_new_tokens: int = 64,
        targets: Targets = "per_token",
        recursive: bool = False,
    ) -> None:
        self._max_new_tokens = max_new_tokens
        self.options: dict[str, Any] = {
            "rule": rule,
            "rule_options": rule_options,
            "targets": targets,
            "recursive": recursive,
        }

    @override
    def score(self, prompt: MultimodalPrompt, *, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        if inputs.get("labels") is not None:
            raise ValueError(
                "The scorer 'relevance' explains the model's own answer, but labels contain "
                "another one: score without labels, or use a trained mapper."
            )
        mask = prompt.visual_mask
        scores = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)  # [B, S]
        # Prompts of text alone have nothing to score.
        samples = [sample for sample, visuals in enumerate(prompt.visuals) if visuals]
        given = {name: inputs.get(name) for name in _TOKEN_INPUTS}
        own = {name: value[..., samples, :] for name, value in given.items() if value is not None}
        family = explained_family(model)
        chosen = encode_once(model, family, {**inputs, **own})
        # Answer them, and explain the end token of empty answers.
        answers = greedy_answers(model, family, chosen, self._max_new_tokens)
        end = torch.tensor([min(family.turn_end_ids(model), default=0)])
        answers = [answer if len(answer) else end for answer in answers]
        report = relevance(model, chosen, answer_ids=answers, **self.options)
        for sample, explained in zip(samples, report.samples, strict=True):
            positions = torch.cat([span.positions for span in explained.visuals])
            scores[sample, positions] = explained.scores
        return scores
