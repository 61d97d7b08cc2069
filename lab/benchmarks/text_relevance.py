"""Relevance for a language model without images, to measure what the rules cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_token_compress.relevance.explained_twin import explained_twin
from hf_token_compress.relevance.replay import ReplayPass
from hf_token_compress.relevance.rules import build_rule
from hf_token_compress.relevance.rules.base import PassRule


def text_relevance(
    model: Any,
    prompt_ids: Tensor,
    answer_ids: Tensor,
    *,
    rule: str = "gae",
    checkpointing: bool = False,
) -> Tensor:
    """Score how much each token of an answer depends on each token of its prompt.

    Args:
        model: A decoder-only language model of Transformers.
        prompt_ids: int64 [S], the prompt.
        answer_ids: int64 [T], the answer.
        rule: Name of a rule that needs a single forward pass.
        checkpointing: Keep one layer's activations at a time.

    Returns:
        float32 [T, S].
    """
    explainer = build_rule(rule, {})
    assert isinstance(explainer, PassRule)
    length, count = len(prompt_ids), len(answer_ids)
    with explained_twin(model, checkpointing=checkpointing) as twin:
        ids = torch.cat([prompt_ids, answer_ids[:-1]])  # [K]
        positions = torch.arange(len(ids), device=ids.device)
        leaf = twin.get_input_embeddings()(ids).detach().requires_grad_()  # [K, D]
        present = torch.ones(1, len(ids), dtype=torch.bool, device=ids.device)
        replay = ReplayPass(
            model=twin,
            inputs={
                "inputs_embeds": leaf[None],
                "attention_mask": present.long(),
                "position_ids": positions[None],
            },
            answer_ids=answer_ids[None],
            prediction_positions=positions[None, length - 1 :],
            attention_mask=present,
            visual_mask=torch.zeros_like(present),
            leaves=(leaf,),
            leaf_positions=((0, positions),),
            checkpointing=checkpointing,
        )
        targets = torch.eye(count, dtype=torch.bool, device=ids.device)[:, None]  # [T, 1, T]
        found = explainer.explain_pass(replay, targets)  # [T, 1, K]
    return found[:, 0, :length].detach()
