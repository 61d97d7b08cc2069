"""Next-token distributions along given answers: KL divergence and log-probability.

Answers are forced on `generate`, so that prompts, caches and positions are those of real answers in
every model family.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, LogitsProcessorList


class _ForcedTokens(LogitsProcessor):
    """Allows only the given next tokens, int64 [B, T]."""

    def __init__(self, tokens: Tensor, prompt_length: int) -> None:
        self._tokens, self._prompt_length = tokens, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self._prompt_length
        forced = torch.full_like(scores, float("-inf"))  # [B, V]
        return forced.scatter_(1, self._tokens[:, step, None].to(scores.device), 0.0)


def forced_log_probabilities(
    model: Any, inputs: Mapping[str, Any], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """The model's next-token distributions at every token of given answers.

    Args:
        model: A model with `generate`, compressed or not.
        inputs: B encoded prompts, padded on the left.
        answers: For each prompt the token ids of an answer, at least one.

    Returns:
        For each prompt, log-probabilities in float32 [T, V], with T the length of its answer.
    """
    tokens = pad_sequence([torch.tensor(answer) for answer in answers], batch_first=True)  # [B, T]
    forced = _ForcedTokens(tokens.to(model.device), inputs["input_ids"].shape[1])
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            max_new_tokens=tokens.shape[1],
            do_sample=False,
            logits_processor=LogitsProcessorList([forced]),
            return_dict_in_generate=True,
            output_logits=True,
        )
        logits = torch.stack(output.logits, dim=1).float()  # [B, T, V]
        found = logits.log_softmax(-1)
    return [own[: len(answer)] for own, answer in zip(found, answers, strict=True)]


def mean_divergence(full: Tensor, other: Tensor) -> float:
    """Mean KL(full || other) over positions, in nats, of log-probabilities [T, V]."""
    terms = full.exp() * (full - other)
    return float(terms.masked_fill(full == float("-inf"), 0.0).sum(-1).mean())


def answer_log_probability(distributions: Tensor, answer: Sequence[int]) -> float:
    """Log-probability of an answer of T tokens, in nats, from log-probabilities [T, V]."""
    ids = torch.tensor(answer, device=distributions.device)[:, None]  # [T, 1]
    return float(distributions.gather(1, ids).sum())


def first_tokens(new_tokens: Tensor, count: int, end_ids: Collection[int]) -> tuple[int, ...]:
    """The first tokens of a generated answer, int64 [T], its end token included."""
    found: list[int] = []
    for token in new_tokens[:count].tolist():
        found.append(token)
        if token in end_ids:
            break
    return tuple(found)


def end_ids(model: Any) -> frozenset[int]:
    """Ids of the tokens that end an answer."""
    own = model.generation_config.eos_token_id
    return frozenset([own] if isinstance(own, int) else own or ())


def answer_ids(processor: Any, answer: str) -> list[int]:
    """The token ids of an answer in words."""
    tokenizer = getattr(processor, "tokenizer", processor)
    ids: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return ids
