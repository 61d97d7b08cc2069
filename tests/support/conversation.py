"""Conversations of several turns, and what recomputing them from scratch gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pairs import ModelPair, whole_position_ids
from tiny_models import Prompt, make_inputs
from torch import Tensor

OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
NEW = 2
ENDLESS: dict[str, Any] = {
    "max_new_tokens": NEW,
    "do_sample": False,
    "eos_token_id": None,
    "return_dict_in_generate": True,
    "output_logits": True,
}


def extended(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs of one prompt, or text inputs of a batch, followed by others."""
    joined = {**first, **second}
    for name in first.keys() & second.keys():
        axis = 1 if name in OF_TOKENS else 0
        joined[name] = torch.cat([first[name], second[name]], dim=axis)
    for name in (first.keys() ^ second.keys()) & set(OF_TOKENS):
        # Text that was generated has no token types.
        own, other = (first, second) if name in first else (second, first)
        zeros = torch.zeros_like(other["input_ids"])
        parts = [own[name], zeros] if own is first else [zeros, own[name]]
        joined[name] = torch.cat(parts, dim=1)
    return joined


def text(ids: Tensor) -> dict[str, Tensor]:
    """Inputs of tokens that a model generated."""
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def logits_of(output: Any) -> Tensor:
    """The logits of all generated tokens, float [B, NEW, V]."""
    return torch.stack(output.logits, dim=1)


class Conversation:
    """What one caller keeps of a conversation of B samples, turn by turn.

    Attributes:
        tokens: Inputs with one entry per token, of the whole conversation so far.
        visuals: Images and videos of the turn.
        kept: int64 [B, S], 1 on the tokens that the model sees.
    """

    def __init__(self, pair: ModelPair, family: str, dtype: torch.dtype = torch.float32) -> None:
        self.pair, self.family, self.dtype = pair, family, dtype
        self.tokens: dict[str, Tensor] = {}
        self.visuals: dict[str, Tensor] = {}
        self.kept = torch.zeros(0, 0, dtype=torch.long)
        self._alone: list[dict[str, Tensor]] = []

    def say(self, prompts: Sequence[Prompt], seed: int = 0) -> dict[str, Tensor]:
        """Add the next prompt of every sample; returns the inputs of these prompts alone."""
        options: dict[str, Any] = {"family": self.family, "dtype": self.dtype, "seed": seed}
        inputs = make_inputs(prompts, **options)
        alone = [make_inputs([own], **options) for own in prompts]
        self.visuals = {name: own for name, own in inputs.items() if name not in OF_TOKENS}
        self._add({name: own for name, own in inputs.items() if name in OF_TOKENS}, alone)
        return inputs

    def hear(self, ids: Tensor) -> None:
        """Add what the model generated, int64 [B, N]."""
        self._add(text(ids), [text(own[None]) for own in ids])

    def drop(self, samples: Sequence[Any], start: int = 0) -> None:
        """Hide the tokens that a report leaves out, of those from a token of the sequence on."""
        self.kept[:, start:] = 0
        for number, sample in enumerate(samples):
            self.kept[number, sample.kept_indices] = 1

    def recomputed(self, number: int, **options: Any) -> Any:
        """The stock model's answer to one sample without padding, dropped tokens hidden."""
        present = self.tokens["attention_mask"][number].bool()
        whole = self._alone[number]
        hidden = {
            **whole,
            "attention_mask": self.kept[number, present][None],
            "position_ids": whole_position_ids(self.pair.stock, whole),
        }
        return self.pair.stock.generate(**{**hidden, **ENDLESS, **options})

    def everything(self) -> dict[str, Tensor]:
        """The whole conversation of a single sample."""
        return self._alone[0]

    def _add(self, tokens: dict[str, Tensor], alone: list[dict[str, Tensor]]) -> None:
        mask = tokens["attention_mask"]
        if self.tokens:
            self.tokens = extended(self.tokens, tokens)
            self.kept = torch.cat([self.kept, mask], dim=1)
            self._alone = [extended(*both) for both in zip(self._alone, alone, strict=True)]
        else:
            self.tokens, self.kept, self._alone = dict(tokens), mask.clone(), alone
