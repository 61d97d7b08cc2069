"""The same for a language model without images: how much an answer rests on each prompt token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..rewrite import gather_positions, kept_positions
from .model_state import ready_for_gradients
from .replay import ReplayPass, check_answers
from .rules import build_rule
from .rules.base import PassRule


def token_relevance(
    model: Any,
    input_ids: Tensor,
    answer_ids: Sequence[Tensor],
    *,
    attention_mask: Tensor | None = None,
    rule: str = "gae",
    rule_options: Mapping[str, Any] | None = None,
    checkpointing: bool = False,
) -> list[Tensor]:
    """Tell how much each token of an answer rests on each token of its prompt.

    Args:
        model: A decoder-only language model of Transformers.
        input_ids: int64 [B, S], the prompts.
        answer_ids: For each prompt, int64 [T], its answer.
        attention_mask: bool or 0/1 [B, S], 0 on padding, on any side.
        rule: Name of a rule that is worked out from one forward pass.
        rule_options: Keyword arguments of the rule.
        checkpointing: Keep one layer's activations at a time.

    Returns:
        For each prompt, float32 [T, n] over its n tokens.

    Raises:
        TypeError, ValueError: An answer has no tokens, or the model's attention cannot be
            intercepted.
    """
    explainer = build_rule(rule, rule_options or {})
    if not isinstance(explainer, PassRule):
        raise ValueError(f"Rule {rule!r} leaves visual tokens out, and text has none.")
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    check_answers(len(input_ids), answer_ids)
    with ready_for_gradients(model, checkpointing=checkpointing):
        replay = _text_pass(model, input_ids, mask.bool(), answer_ids)
        present = replay.prediction_rows >= 0
        tokens = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
        found = explainer.explain_pass(replay, present & tokens[:, None])  # [T, B, K]
    lengths = mask.bool().sum(1).tolist()
    return [
        found[: len(answer), row, :length].detach()
        for row, (length, answer) in enumerate(zip(lengths, answer_ids, strict=True))
    ]


def _text_pass(
    model: Any, input_ids: Tensor, mask: Tensor, answer_ids: Sequence[Tensor]
) -> ReplayPass:
    device = input_ids.device
    lengths = mask.sum(1).tolist()
    totals = [length + len(answer) - 1 for length, answer in zip(lengths, answer_ids, strict=True)]
    ids = gather_positions(input_ids, kept_positions(mask, "right"), 0)
    ids = torch.nn.functional.pad(ids, (0, max(totals) - ids.shape[1]))
    rows = torch.full((len(ids), max(map(len, answer_ids))), -1, device=device)
    answers = torch.full_like(rows, -1)
    for row, (length, answer) in enumerate(zip(lengths, answer_ids, strict=True)):
        ids[row, length : totals[row]] = answer[:-1]
        rows[row, : len(answer)] = torch.arange(length - 1, totals[row], device=device)
        answers[row, : len(answer)] = answer
    columns = torch.arange(ids.shape[1], device=device)
    present = columns < torch.tensor(totals, device=device)[:, None]
    embedded = model.get_input_embeddings()(ids).detach()
    leaves = tuple(sample.clone().requires_grad_() for sample in embedded)
    return ReplayPass(
        model=model,
        inputs={
            "inputs_embeds": torch.stack(leaves),
            "attention_mask": present.long(),
            "position_ids": columns.expand(ids.shape),
        },
        answer_ids=answers,
        prediction_rows=rows,
        attention_mask=present,
        visual_mask=torch.zeros_like(present),
        leaves=leaves,
        leaf_places=tuple((row, columns) for row in range(len(ids))),
    )
