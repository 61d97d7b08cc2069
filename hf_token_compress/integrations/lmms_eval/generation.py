"""The generation options of lmms-eval's tasks, as Transformers takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ...notices import warn_once

MAX_NEW_TOKENS = 128
"""Longest answer where a task names none, as in the model classes of lmms-eval."""

_SAMPLING = ("temperature", "top_k", "top_p")


def generate_options(task_options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `generate` for the `generation_kwargs` of a task.

    Temperature 0 means greedy decoding. Options that only single model classes of lmms-eval read,
    such as `image_aspect_ratio`, are left out with a warning.
    """
    given = {name: value for name, value in task_options.items() if value is not None}
    given.pop("until", None)
    longest = given.pop("max_gen_toks", MAX_NEW_TOKENS)
    known = vars(GenerationConfig())
    for name in [name for name in given if name not in known]:
        warn_once(f"The generation option {name!r} of lmms-eval is not used.")
        del given[name]
    temperature = given.get("temperature")
    sampled = given.get("do_sample", temperature is not None) and temperature != 0
    if not sampled:
        given = {name: value for name, value in given.items() if name not in _SAMPLING}
    return {"max_new_tokens": longest, **given, "do_sample": bool(sampled)}


def stop_strings(task_options: Mapping[str, Any]) -> list[str]:
    """The texts that end an answer."""
    until = task_options.get("until") or []
    return [until] if isinstance(until, str) else [text for text in until if text]


def cut_answer(text: str, stops: Iterable[str]) -> str:
    """The answer before the first of the stop strings, stripped."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text.strip()


def generated_lengths(new_tokens: Tensor, end: int | Sequence[int] | None) -> list[int]:
    """Tokens of each answer, with the one that ends it.

    Args:
        new_tokens: int64 [B, new], padded on the right.
        end: Ids of tokens that end an answer.
    """
    ends = [] if end is None else [end] if isinstance(end, int) else list(end)
    is_end = torch.isin(new_tokens, new_tokens.new_tensor(ends))  # [B, new]
    # A token counts if no end stands before it.
    return (is_end.cumsum(-1) - is_end.long() == 0).sum(-1).tolist()
