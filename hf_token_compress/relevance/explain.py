"""`relevance`: how much the answers to a batch of prompts rest on each of their visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..compression.mixin import TokenCompressionMixin
from ..config import Targets as Targets
from ..models.family import ModelFamily
from ..models.registry import model_family
from ..prompt import VisualSpan
from .attention_tap import MEMORY_LIMIT
from .model_state import ready_for_gradients
from .replay import Replay, make_replay
from .rules import DEFAULT_RULE, Rule, build_rule
from .rules.recursive import RecursiveRule


@dataclass(frozen=True)
class SampleRelevance:
    """What the answer to one prompt rested on.

    Attributes:
        scores: float32 [N], relevance of its visual tokens in order, over all its images and
            videos; the mean over the answer's tokens.
        per_token: float32 [T, N], relevance for each answer token; None unless asked for.
        answer_ids: int64 [T], the answer that is explained.
        visuals: Its images and videos, with their columns in the caller's sequence and their grids.
    """

    scores: Tensor
    per_token: Tensor | None
    answer_ids: Tensor
    visuals: tuple[VisualSpan, ...]


@dataclass(frozen=True)
class RelevanceReport:
    """Relevance for a batch.

    Attributes:
        samples: One entry per prompt.
        rule: Name of the rule.
    """

    samples: tuple[SampleRelevance, ...]
    rule: str


def relevance(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    *,
    answer_ids: Sequence[Tensor] | None = None,
    max_new_tokens: int = 16,
    rule: str = DEFAULT_RULE,
    rule_options: Mapping[str, Any] | None = None,
    targets: Targets = "per_token",
    per_token_rows: bool = False,
    recursive: bool = False,
    checkpointing: bool = False,
    memory_limit: int = MEMORY_LIMIT,
) -> RelevanceReport:
    """Tell how much the answers to a batch of prompts rest on each visual token.

    The prompts are replayed uncompressed with their answers behind them, in one forward pass; every
    target has a backward pass. Memory grows with the length as that of an ordinary backward pass
    does: no attention map is kept. The model is left as it was, also after an exception.

    Args:
        model: A loaded model of a supported family with a language model head, compressed or not.
        inputs: What the processor returned, padded on any side.
        answer_ids: For each prompt, int64 [T] with T ≥ 1, the answer to explain, without the token
            that ends it; by default the model's own greedy answer to the whole prompt.
        max_new_tokens: Longest own answer.
        rule: Name of the rule, one of `available_rules()`.
        rule_options: Keyword arguments of the rule.
        targets: "per_token" explains the raw score of each answer token on its own and takes the
            mean; "sum" explains their sum at once, which costs one backward pass for all.
        per_token_rows: Report the relevance for each answer token too; needs "per_token".
        recursive: Explain, leave the least relevant tokens out, and explain again.
        checkpointing: Keep one layer's activations at a time, for about a third more time.
        memory_limit: Bytes that working on one attention layer may take beyond the backward pass;
            less is slower.

    Returns:
        A report. What the scores of a prompt sum to depends on the rule; with "gae" it is the mean
        over the answer's tokens of what the row of R that predicts a token holds at visual tokens.

    Raises:
        TypeError: `model` is no Transformers model, or an input has the wrong type.
        ValueError: The family is not supported, a prompt has no visual tokens, an answer no tokens,
            the model's attention cannot be intercepted, or inputs do not fit each other.
    """
    if targets not in get_args(Targets):
        raise ValueError(f"targets must be 'per_token' or 'sum', but it is {targets!r}.")
    if per_token_rows and targets == "sum":
        raise ValueError("per_token_rows needs targets='per_token': a sum has no rows of its own.")
    explainer: Rule = build_rule(rule, rule_options or {})
    if recursive:
        explainer = RecursiveRule(explainer)
    family = explained_family(model)
    with ready_for_gradients(model, checkpointing=checkpointing):
        if answer_ids is None:
            answer_ids = greedy_answers(model, family, inputs, max_new_tokens)
        replay = make_replay(model, family, inputs, answer_ids, memory_limit)
        groups = target_groups(replay, targets)
        found = explainer.explain(replay, groups, replay.layout.attention_mask)  # [G, B, S]
    return RelevanceReport(tuple(_sample_reports(replay, found, per_token_rows)), rule)


def explained_family(model: Any) -> ModelFamily:
    """The family of a model that can be explained.

    Raises:
        TypeError: `model` is no Transformers model.
        ValueError: Its family is not supported, or it has no language model head.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"relevance takes a loaded Transformers model, not {type(model).__name__}: for a "
            "wrapped one, pass the model inside."
        )
    stock: Any = model.stock_class if isinstance(model, TokenCompressionMixin) else type(model)
    family = model_family(stock)
    if model.get_output_embeddings() is None:
        raise ValueError(
            f"{type(model).__name__} has no language model head and gives no answer to explain: "
            "load it with AutoModelForImageTextToText."
        )
    return family


def greedy_answers(
    model: Any, family: ModelFamily, inputs: Mapping[str, Any], max_new_tokens: int
) -> list[Tensor]:
    """The model's own answers to the whole prompts, each int64 [T], without what ends them."""
    compressed = isinstance(model, TokenCompressionMixin)
    with model.token_compression.disabled() if compressed else nullcontext(), torch.no_grad():
        sequences = model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
        )
    ends = family.turn_end_ids(model)
    answers = []
    for answer in sequences[:, inputs["input_ids"].shape[1] :].tolist():
        length = next((place for place, token in enumerate(answer) if token in ends), len(answer))
        answers.append(torch.tensor(answer[:length], dtype=torch.long, device=model.device))
    return answers


def target_groups(replay: Replay, targets: Targets) -> Tensor:
    """Which answer tokens make up each target: bool [G, B, T]."""
    present = replay.prediction_rows >= 0  # [B, T]
    if targets == "sum":
        return present[None]
    return present & torch.eye(present.shape[1], dtype=torch.bool, device=present.device)[:, None]


def _sample_reports(replay: Replay, found: Tensor, per_token_rows: bool) -> list[SampleRelevance]:
    samples = []
    for row, (columns, visuals, answer) in enumerate(
        zip(replay.visual_columns, replay.visuals, replay.answers, strict=True)
    ):
        tokens = found[:, row, columns].detach()  # [G, N]
        samples.append(
            SampleRelevance(
                scores=tokens.sum(0) / len(answer),
                per_token=tokens[: len(answer)] if per_token_rows else None,
                answer_ids=answer,
                visuals=visuals,
            )
        )
    return samples
