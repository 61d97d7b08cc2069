"""Triton version: the launches of both kernels and the steps between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from ..launch import AMD, NVIDIA, Launch, current_vendor, dot_precision, head_split
from .triton_kernel import key_sums, query_statistics


@cache
def statistics_configs(head_dim: int, dtype: torch.dtype, vendor: str) -> tuple[triton.Config, ...]:
    """Shipped configurations of `query_statistics`; head_dim is the larger of both head sizes."""
    small = head_dim > 128 or dtype == torch.float32
    sizes = {"BLOCK_QUERIES": 64, "BLOCK_KEYS": 32 if small else 64}
    warps = 8 if small and vendor == NVIDIA else 4
    return (triton.Config(sizes, num_warps=warps, num_stages=1 if vendor == AMD else 2),)


@cache
def sums_configs(head_dim: int, dtype: torch.dtype, vendor: str) -> tuple[triton.Config, ...]:
    """Shipped configurations of `key_sums`; head_dim is the larger of both head sizes."""
    tiles: tuple[tuple[int, int, int], ...]
    if dtype == torch.float32:
        tiles = ((64, 16, 4),)
    elif head_dim > 128:
        tiles = ((64, 32, 8 if vendor == NVIDIA else 4),)
    elif head_dim > 64 and vendor == NVIDIA:
        tiles = ((64, 32, 4), (128, 64, 8))
    else:
        tiles = ((64, 64, 4), (128, 64, 8))
    return tuple(
        triton.Config(
            {"BLOCK_KEYS": keys, "BLOCK_QUERIES": queries},
            num_warps=warps,
            num_stages=1 if vendor == AMD else 2,
        )
        for keys, queries, warps in tiles
    )


@dataclass(frozen=True)
class Problem:
    """The tensors and options of one call.

    Attributes:
        weights: float32 [T, B, Q], relevance of the queries.
        query: [B, heads, Q, head_dim].
        key: [B, key_heads, S, head_dim].
        value: [B, key_heads, S, value_dim].
        grad_output: [T, B, heads, Q, value_dim]; unused with the reduction "attention".
        positions: int64 [Q], ascending positions of the queries.
        key_mask: bool [B, S].
        mask: bool [B, heads, Q, S], whose strides may be zero, or None.
        causal, sliding_window, scaling, reduction: As in `relevance_step`.
        vendor: Vendor of the GPU.
    """

    weights: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    grad_output: Tensor
    positions: Tensor
    key_mask: Tensor
    mask: Tensor | None
    causal: bool
    sliding_window: int | None
    scaling: float
    reduction: str
    vendor: str

    def arguments(self) -> dict[str, Any]:
        """The arguments that both kernels take."""
        _, batch, queries = self.weights.shape
        heads, head_dim = self.query.shape[1], self.query.shape[3]
        key_heads, length, value_dim = self.value.shape[1:]
        main, rest = head_split(head_dim, self.query.dtype)
        value_main, value_rest = head_split(value_dim, self.query.dtype)
        mask = self.key_mask if self.mask is None else self.mask
        strides = {
            "query_strides_": ("bhq", self.query),
            "key_strides_": ("bhs", self.key),
            "value_strides_": ("bhs", self.value),
            "grad_strides_": ("tbhq", self.grad_output),
        }
        return {
            "query": self.query,
            "key": self.key,
            "value": self.value,
            "grad_output": self.grad_output,
            "positions": self.positions,
            "active_queries": self.active_queries(),
            "key_mask": self.key_mask,
            "mask": mask,
            "batch": batch,
            "heads": heads,
            "queries": queries,
            "length": length,
            **{
                prefix + axis: tensor.stride(index)
                for prefix, (axes, tensor) in strides.items()
                for index, axis in enumerate(axes)
            },
            **{
                "mask_strides_" + axis: 0 if self.mask is None else self.mask.stride(index)
                for index, axis in enumerate("bhqs")
            },
            "scaling": self.scaling,
            "window": self.sliding_window or 0,
            "GROUP": heads // key_heads,
            "HEAD_DIM": head_dim,
            "MAIN": main,
            "REST": rest,
            "VALUE_DIM": value_dim,
            "VALUE_MAIN": value_main,
            "VALUE_REST": value_rest,
            "REDUCTION": self.reduction,
            "CAUSAL": self.causal,
            "WINDOWED": self.sliding_window is not None,
            "MASKED": self.mask is not None,
            "PRECISION": dot_precision(self.query.dtype, self.vendor),
        }

    def widest_head(self) -> int:
        """The larger of head_dim and value_dim."""
        return max(self.query.shape[-1], self.value.shape[-1])

    def active_queries(self) -> Tensor:
        """int32 [B, 2]: the first query with relevance for any target, and one past the last."""
        active = (self.weights != 0).any(dim=0)  # [B, Q]
        queries = active.shape[1]
        index = torch.arange(queries, device=active.device)
        first = torch.where(active, index, queries).amin(dim=1)  # [B]
        last = torch.where(active, index + 1, 0).amax(dim=1)  # [B]
        return torch.stack([first, last], dim=1).to(torch.int32)  # [B, 2]

    def statistics_launch(self, *, summed: bool) -> tuple[Launch, Tensor, Tensor]:
        """Describe the launch of `query_statistics`.

        Returns:
            The launch, log_sum_exp [B, heads, Q] and query_sum [T, B, heads, Q]. Both are written
            only for active queries, and query_sum only if `summed`.
        """
        targets, batch, queries = self.weights.shape
        heads = self.query.shape[1]
        log_sum_exp = self.weights.new_zeros(batch, heads, queries)
        query_sum = self.weights.new_zeros(targets if summed else 0, batch, heads, queries)

        def grid(meta: Mapping[str, Any]) -> tuple[int, ...]:
            programs = batch * targets if summed else batch
            return (triton.cdiv(queries, meta["BLOCK_QUERIES"]), heads, programs)

        arguments = {
            **self.arguments(),
            "log_sum_exp": log_sum_exp,
            "query_sum": query_sum if summed else log_sum_exp,
            "SUMMED": summed,
        }
        shipped = statistics_configs(self.widest_head(), self.query.dtype, self.vendor)
        return Launch(query_statistics, grid, arguments, shipped), log_sum_exp, query_sum

    def sums_launch(self, log_sum_exp: Tensor) -> tuple[Launch, Tensor]:
        """Describe the launch of `key_sums`.

        Returns:
            The launch and out [T, B, heads, S].
        """
        targets, batch, _ = self.weights.shape
        heads, length = self.query.shape[1], self.key.shape[2]
        out = self.weights.new_empty(targets, batch, heads, length)
        at_once = 1 if targets == 1 else 2
        # For every key: the number of queries before its position.
        key_positions = torch.arange(length + 1, device=self.positions.device)  # [S + 1]
        queries_before = torch.searchsorted(self.positions, key_positions).to(torch.int32)

        def grid(meta: Mapping[str, Any]) -> tuple[int, ...]:
            groups = triton.cdiv(targets, at_once)
            return (triton.cdiv(length, meta["BLOCK_KEYS"]), heads, batch * groups)

        arguments = {
            **self.arguments(),
            "weights": self.weights,
            "targets": targets,
            "queries_before": queries_before,
            "log_sum_exp": log_sum_exp,
            "out": out,
            "TARGETS_AT_ONCE": at_once,
        }
        shipped = sums_configs(self.widest_head(), self.query.dtype, self.vendor)
        return Launch(key_sums, grid, arguments, shipped), out


def relevance_step(
    r: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor | None,
    *,
    query_positions: Tensor | None,
    key_mask: Tensor | None,
    mask: Tensor | None,
    causal: bool,
    sliding_window: int | None,
    scaling: float,
    reduction: str,
    normalize_per_query: bool,
    residual: bool,
    lse: Tensor | None,
) -> Tensor:
    """The Triton version of the package's function, which has checked the arguments."""
    batch, heads, queries, _ = query.shape
    length = key.shape[2]
    if r.numel() == 0 or queries == 0:
        return r.clone() if residual else torch.zeros_like(r)
    if query_positions is None:
        query_positions = torch.arange(queries, device=r.device)
    if key_mask is None:
        key_mask = torch.ones(batch, length, dtype=torch.bool, device=r.device)
    if mask is not None:
        mask = mask.expand(batch, heads, queries, length)
    problem = Problem(
        weights=r.index_select(-1, query_positions),  # [T, B, Q]
        query=query,
        key=key,
        value=value,
        grad_output=query if grad_output is None else grad_output,
        positions=query_positions.contiguous(),
        key_mask=key_mask.contiguous(),
        mask=mask,
        causal=causal,
        sliding_window=sliding_window,
        scaling=scaling,
        reduction=reduction,
        vendor=current_vendor(),
    )
    # First launch: statistics of the queries, unless they are saved and nothing is normalized.
    if lse is None or normalize_per_query:
        launch, log_sum_exp, query_sum = problem.statistics_launch(summed=normalize_per_query)
        launch.run()
        lse = log_sum_exp if lse is None else lse
        if normalize_per_query:
            total = query_sum.mean(dim=2)  # [T, B, Q]
            # A query without relevance may hold anything, and so may its sum.
            counts = (total != 0) & (problem.weights != 0)
            weights = torch.where(counts, problem.weights / total, 0.0)
            problem = replace(problem, weights=weights)
    # Second launch: sums over the queries.
    launch, out = problem.sums_launch(lse.contiguous())
    launch.run()
    folded = out.mean(dim=2)  # [T, B, S]
    return r + folded if residual else folded
