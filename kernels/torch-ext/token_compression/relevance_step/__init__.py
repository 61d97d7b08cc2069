"""One layer of relevance propagation: fold attention times its gradient into relevance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backend import choose_backend
from ..inputs import check_contiguous, check_device, check_dtype, check_floating, check_window
from . import torch_reference
from .torch_reference import Reduction, check_shapes

__all__ = ["Reduction", "relevance_step"]


def relevance_step(
    r: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor | None,
    *,
    query_positions: Tensor | None = None,
    key_mask: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = True,
    sliding_window: int | None = None,
    scaling: float | None = None,
    reduction: Reduction = "positive",
    normalize_per_query: bool = False,
    residual: bool = True,
    lse: Tensor | None = None,
    chunk_size: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Propagate relevance through one attention layer, from its queries to its keys.

    r'[k] = r[k] + Σ_q r[q] · M[q, k], with M = mean over heads of f(A ⊙ ∂y/∂A). The gradient of
    the attention map is ∂y/∂A[h, q, k] = ∂y/∂O[h, q] · V[h, k], so the query, key, value and
    gradient of the attention output are enough. With f(x) = max(x, 0) this is one factor of
    equations 5 and 6 of Chefer et al. 2021, applied to one row of their relevance matrix.

    Neither backend holds an attention map. Both skip queries without relevance and tiles that no
    query sees. Scratch memory grows with S, for torch times the queries of a chunk.

    Args:
        r: float32 [T, B, S], relevance of every token for T targets.
        query: float [B, heads, Q, head_dim], after RoPE; Q = S unless `query_positions` is given.
        key: float [B, key_heads, S, head_dim]; heads is a multiple of key_heads.
        value: float [B, key_heads, S, value_dim].
        grad_output: float [T, B, heads, Q, value_dim], gradient of each target with respect to
            the attention output before its projection; unused with the reduction "attention".
        query_positions: int64 [Q], ascending, positions of the queries; by default all S.
        key_mask: bool [B, S], False on keys that no query sees.
        mask: bool, broadcastable to [B, heads, Q, S], True where a query sees a key, in addition to
            `causal`, `key_mask` and `sliding_window`.
        causal: Queries see keys up to their own position only.
        sliding_window: Number of keys that a query sees at most, its own included; None for all.
        scaling: Factor on the attention logits; by default head_dim ** -0.5.
        reduction: f: "positive" keeps the positive part, "absolute" the magnitude, "signed" all;
            "attention" takes A itself, without gradient.
        normalize_per_query: Divide M[q] by its sum over keys; a sum of zero leaves M[q] zero.
        residual: Add r itself, as in the formula.
        lse: float32 [B, heads, Q], log-sum-exp of the logits of each query; computed if not given.
        chunk_size: Number of queries that the torch backend works on at once; by default as many
            as its `MEMORY_LIMIT` allows.
        backend: `"triton"` or `"torch"`; by default the environment variable
            `HF_TOKEN_COMPRESS_KERNELS`, or else Triton on CUDA and ROCm and torch elsewhere.

    Returns:
        float32 [T, B, S].

    Raises:
        ValueError: Shapes, dtypes or devices do not match, the reduction is unknown, the backend
            cannot run here, or, with Triton, the last dimension of query, key, value or grad_output
            is not contiguous.
    """
    check_shapes(r, query, key, value, grad_output, reduction, query_positions)
    _check_masks(r, query, query_positions, key_mask, mask, lse)
    check_window(sliding_window)
    read = {"query": query, "key": key, "value": value}
    if reduction == "attention":
        grad_output = None
    elif grad_output is not None:
        read["grad_output"] = grad_output
    check_floating(**read)
    arguments = (r, query, key, value, grad_output)
    options: dict[str, Any] = {
        "query_positions": query_positions,
        "key_mask": key_mask,
        "mask": mask,
        "causal": causal,
        "sliding_window": sliding_window,
        "scaling": query.shape[-1] ** -0.5 if scaling is None else scaling,
        "reduction": reduction,
        "normalize_per_query": normalize_per_query,
        "residual": residual,
        "lse": lse,
    }
    if choose_backend(backend, *read.values()) == "torch":
        return torch_reference.relevance_step(*arguments, **options, chunk_size=chunk_size)
    check_contiguous(**read)
    from .triton_launch import relevance_step as fused

    return fused(*arguments, **options)


def _check_masks(
    r: Tensor,
    query: Tensor,
    query_positions: Tensor | None,
    key_mask: Tensor | None,
    mask: Tensor | None,
    lse: Tensor | None,
) -> None:
    """Check the tensors that select queries and keys, and the saved log-sum-exp."""
    _, batch, length = r.shape
    heads, queries = query.shape[1:3]
    check_dtype(torch.float32, r=r)
    if lse is not None:
        if lse.shape != (batch, heads, queries):
            raise ValueError(
                f"lse must be {[batch, heads, queries]} like the query, but is {list(lse.shape)}."
            )
        check_dtype(torch.float32, lse=lse)
    if query_positions is not None:
        check_dtype(torch.int64, query_positions=query_positions)
    if key_mask is not None:
        if key_mask.shape != (batch, length):
            raise ValueError(
                f"key_mask must be {[batch, length]} like the keys, but is {list(key_mask.shape)}."
            )
        check_dtype(torch.bool, key_mask=key_mask)
    if mask is not None:
        check_dtype(torch.bool, mask=mask)
        wanted = (batch, heads, queries, length)
        try:
            fits = torch.broadcast_shapes(mask.shape, wanted) == wanted
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"mask must be broadcastable to {list(wanted)}, but is {list(mask.shape)}."
            )
    given = {
        "query_positions": query_positions,
        "key_mask": key_mask,
        "mask": mask,
        "lse": lse,
    }
    check_device(r=r, query=query, **{name: one for name, one in given.items() if one is not None})
