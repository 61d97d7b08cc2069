"""Show the caller's own prompt to the callbacks that were passed to `generate`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria
from typing_extensions import override

from ..rewrite import restore_prompt


@dataclass(frozen=True)
class PromptRestorer:
    """Puts the caller's prompt back in place of the rewritten one.

    Attributes:
        prompt_ids: int64 [B, S], the caller's prompt.
        prompt_length: K, length of the rewritten prompt.
    """

    prompt_ids: Tensor
    prompt_length: int

    def __call__(self, sequences: Tensor) -> Tensor:
        """int64 [B * n, K + new] → [B * n, S + new]."""
        return restore_prompt(sequences, self.prompt_ids, self.prompt_length)

    def one(self, sample: int, sequence: Tensor) -> Tensor:
        """int64 [K + new] of one sample of the batch → [S + new]."""
        prompt = self.prompt_ids[sample].to(sequence.device)
        return torch.cat([prompt, sequence[self.prompt_length :]])


class RestoredCriteria(StoppingCriteria):
    """The caller's stopping criterion, shown the caller's prompt."""

    def __init__(self, criteria: Any, restore: PromptRestorer) -> None:
        self._criteria = criteria
        self._restore = restore

    @override
    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Any:
        return self._criteria(self._restore(input_ids), scores, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Transformers asks criteria for attributes such as eos_token_id.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._criteria, name)


class RestoredProcessor(LogitsProcessor):
    """The caller's logits processor, shown the caller's prompt."""

    def __init__(self, processor: Any, restore: PromptRestorer) -> None:
        self._processor = processor
        self._restore = restore

    @override
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._processor(self._restore(input_ids), scores)


class RestoredStreamer:
    """The caller's streamer, whose first `put` is the caller's prompt."""

    def __init__(self, streamer: Any, restore: PromptRestorer) -> None:
        self._streamer = streamer
        self._restore = restore
        self._prompt_is_next = True

    def put(self, value: Tensor) -> None:
        """Pass on new tokens; at first the caller's prompt instead of the rewritten one."""
        if self._prompt_is_next:
            self._prompt_is_next = False
            value = self._restore(value)
        self._streamer.put(value)

    def end(self) -> None:
        """Pass on the end of the sequence."""
        self._streamer.end()


def restored_callbacks(arguments: dict[str, Any], restore: PromptRestorer) -> dict[str, Any]:
    """Wrap the criteria, processors, prefix function and streamer among `generate`'s arguments."""
    wrapped: dict[str, Any] = {}
    if criteria := arguments.get("stopping_criteria"):
        wrapped["stopping_criteria"] = type(criteria)(
            RestoredCriteria(item, restore) for item in criteria
        )
    if processors := arguments.get("logits_processor"):
        # The decoding loop's own processors take more than ids and scores.
        wrapped["logits_processor"] = type(processors)(
            RestoredProcessor(item, restore)
            if len(inspect.signature(item.__call__).parameters) == 2
            else item
            for item in processors
        )
    if allowed := arguments.get("prefix_allowed_tokens_fn"):
        wrapped["prefix_allowed_tokens_fn"] = lambda sample, sequence: allowed(
            sample, restore.one(sample, sequence)
        )
    if streamer := arguments.get("streamer"):
        wrapped["streamer"] = RestoredStreamer(streamer, restore)
    return wrapped
