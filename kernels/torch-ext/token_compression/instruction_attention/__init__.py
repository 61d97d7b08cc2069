"""Attention of the instruction tokens to every key: its mean and its peak over these tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backend import choose_backend
from ..inputs import (
    check_contiguous,
    check_device,
    check_dtype,
    check_floating,
    check_heads,
    check_window,
)
from . import torch_reference

__all__ = ["attention_statistics", "instruction_attention"]


def instruction_attention(
    query: Tensor,
    key: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    key_mask: Tensor,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    mask: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    per_head: bool = False,
    query_counts: Sequence[int] | None = None,
    chunk_size: int = 16,
    backend: str | None = None,
) -> Tensor:
    """Mean causal attention of the queries of each sample to every key.

    Neither backend holds a queries × keys matrix. Beyond the result, torch needs memory for
    `chunk_size` queries × keys on a CPU and for logits of 256 MiB elsewhere, and Triton for
    queries × keys / 64 floats of log-sum-exp.

    Args:
        query: float [Q, heads, head_dim], the instruction tokens of all samples, after RoPE.
        key: float [B, S, key_heads, head_dim], all tokens, after RoPE; heads is a multiple of
            key_heads (grouped-query attention).
        query_sample: int64 [Q], sample of each query, in any order.
        query_position: int64 [Q], position of each query, which attends to keys up to there.
        key_mask: bool [B, S], False on padding; padded keys may hold anything, including NaN.
        scaling: Factor on the logits; by default head_dim ** -0.5.
        sliding_window: Number of keys that a query attends to at most, its own included; None for
            all.
        mask: bool [Q, S], the keys that each query sees, in place of causal order and window.
        softcap: Logits become softcap * tanh(logits / softcap); None for logits as they are.
        sinks: float [heads], a logit that takes attention from all keys; None without.
        per_head: Keep the heads separate instead of taking their mean.
        query_counts: Queries of each sample, B numbers, if the queries are in the order of the
            samples; without them the torch backend reads `query_sample` on the host.
        chunk_size: Number of queries that the torch backend works on at once on a CPU.
        backend: `"triton"` or `"torch"`; by default the environment variable
            `HF_TOKEN_COMPRESS_KERNELS`, or else Triton on CUDA and ROCm and torch elsewhere.
            `mask`, `softcap` and `sinks` need torch.

    Returns:
        float32 [B, S], or [B, heads, S] with `per_head`. Samples without queries are zero.

    Raises:
        ValueError: Shapes, dtypes or devices do not match, the backend cannot run here, or, with
            Triton, the last dimension of `query` or `key` is not contiguous.
    """
    return _call(
        (query, key, query_sample, query_position, key_mask),
        scaling=scaling,
        sliding_window=sliding_window,
        special={"mask": mask, "softcap": softcap, "sinks": sinks},
        per_head=per_head,
        query_counts=query_counts,
        chunk_size=chunk_size,
        backend=backend,
    )


def attention_statistics(
    query: Tensor,
    key: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    key_mask: Tensor,
    among: Tensor,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    mask: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    query_counts: Sequence[int] | None = None,
    chunk_size: int = 64,
    backend: str | None = None,
) -> Tensor:
    """Mean attention of the queries of each sample, and its peak, in one pass.

    The mean is that of `instruction_attention`. The peak of a key is the largest share that a
    query gives it of all its attention to the keys in `among`, which counts as at least 1e-9.

    Args:
        query: float [Q, heads, head_dim], as all arguments but `among` in `instruction_attention`.
        key: float [B, S, key_heads, head_dim].
        query_sample: int64 [Q].
        query_position: int64 [Q].
        key_mask: bool [B, S].
        among: bool [B, S], the keys that shares are taken of.
        scaling: Factor on the logits.
        sliding_window: Keys that a query attends to at most.
        mask: bool [Q, S].
        softcap: Cap of the logits.
        sinks: float [heads].
        query_counts: Queries of each sample.
        chunk_size: Queries at once on a CPU.
        backend: `"triton"` or `"torch"`.

    Returns:
        float32 [2, B, heads, S], mean and peak; the peak is zero outside `among`.

    Raises:
        ValueError: As in `instruction_attention`.
    """
    if among.shape != key_mask.shape:
        raise ValueError(
            f"among {list(among.shape)} does not fit key_mask {list(key_mask.shape)}: their shapes "
            "must be equal."
        )
    check_dtype(torch.bool, among=among)
    check_device(query=query, among=among)
    return _call(
        (query, key, query_sample, query_position, key_mask),
        scaling=scaling,
        sliding_window=sliding_window,
        special={"mask": mask, "softcap": softcap, "sinks": sinks},
        per_head=True,
        query_counts=query_counts,
        chunk_size=chunk_size,
        backend=backend,
        among=among,
    )


def _call(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    *,
    scaling: float | None,
    sliding_window: int | None,
    special: dict[str, Any],
    per_head: bool,
    query_counts: Sequence[int] | None,
    chunk_size: int,
    backend: str | None,
    among: Tensor | None = None,
) -> Tensor:
    """Check the arguments and run one of the versions."""
    query, key = tensors[:2]
    mask, sinks = special["mask"], special["sinks"]
    _check(*tensors, sliding_window)
    if sinks is not None and sinks.shape != query.shape[1:2]:
        raise ValueError(f"sinks must be [{query.shape[1]}], but is {list(sinks.shape)}.")
    if mask is not None:
        if mask.shape != (len(query), key.shape[1]):
            raise ValueError(
                f"mask must be [queries, length], {[len(query), key.shape[1]]}, but is "
                f"{list(mask.shape)}."
            )
        check_dtype(torch.bool, mask=mask)
        check_device(query=query, mask=mask)
    if query_counts is not None and (len(query_counts), sum(query_counts)) != (
        len(key),
        len(query),
    ):
        raise ValueError(
            f"query_counts {list(query_counts)} does not fit {len(query)} queries of {len(key)} "
            "samples: pass the number of queries of each sample."
        )
    options: dict[str, Any] = {
        "query_counts": query_counts,
        "among": among,
        "scaling": query.shape[-1] ** -0.5 if scaling is None else scaling,
        "sliding_window": sliding_window,
        "per_head": per_head,
    }
    given = [name for name, value in special.items() if value is not None]
    if choose_backend(backend, query, key, torch_only=given) == "torch":
        options.update(special, chunk_size=chunk_size)
        return torch_reference.attention_statistics(*tensors, **options)
    check_contiguous(query=query, key=key)
    from .triton_launch import attention_statistics as fused

    return fused(*tensors, **options)


def _check(
    query: Tensor,
    key: Tensor,
    query_sample: Tensor,
    query_position: Tensor,
    key_mask: Tensor,
    sliding_window: int | None,
) -> None:
    if query.ndim != 3 or key.ndim != 4:
        raise ValueError(
            "query must be [queries, heads, head_dim] and key [samples, length, key heads, "
            f"head_dim], but they are {list(query.shape)} and {list(key.shape)}."
        )
    queries, heads, head_dim = query.shape
    samples, length, key_heads, key_dim = key.shape
    check_heads(heads, head_dim, key_heads, key_dim)
    if query_sample.shape != (queries,) or query_position.shape != (queries,):
        raise ValueError(
            f"query_sample and query_position must have one entry per query ({queries}), but have "
            f"{tuple(query_sample.shape)} and {tuple(query_position.shape)}."
        )
    if key_mask.shape != (samples, length):
        raise ValueError(
            f"key_mask must be [{samples}, {length}] like the keys, but is {list(key_mask.shape)}."
        )
    check_window(sliding_window)
    check_device(
        query=query,
        key=key,
        query_sample=query_sample,
        query_position=query_position,
        key_mask=key_mask,
    )
    check_floating(query=query, key=key)
    check_dtype(torch.int64, query_sample=query_sample, query_position=query_position)
    check_dtype(torch.bool, key_mask=key_mask)
