"""Triton version: what the kernels are launched with, and what is done between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from ..launch import AMD, NVIDIA, Launch, current_vendor, dot_precision, head_split
from .triton_kernel import column_sums, row_statistics


@cache
def row_configs(head_dim: int, dtype: torch.dtype, vendor: str) -> tuple[triton.Config, ...]:
    """Shipped configurations of `row_statistics`; head_dim is the larger of both."""
    small = head_dim > 128 or dtype == torch.float32
    sizes = {"BLOCK_ROWS": 64, "BLOCK_KEYS": 32 if small else 64}
    warps = 8 if small and vendor == NVIDIA else 4
    return (triton.Config(sizes, num_warps=warps, num_stages=1 if vendor == AMD else 2),)


@cache
def column_configs(head_dim: int, dtype: torch.dtype, vendor: str) -> tuple[triton.Config, ...]:
    """Shipped configurations of `column_sums`; head_dim is the larger of both."""
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
            {"BLOCK_KEYS": keys, "BLOCK_ROWS": rows},
            num_warps=warps,
            num_stages=1 if vendor == AMD else 2,
        )
        for keys, rows, warps in tiles
    )


@dataclass(frozen=True)
class Problem:
    """The tensors of one call, and what both kernels have in common.

    Attributes:
        weights: float32 [T, B, Q], relevance of the query rows.
        query: [B, heads, Q, head_dim].
        key: [B, key_heads, S, head_dim].
        value: [B, key_heads, S, value_dim].
        grad_output: [T, B, heads, Q, value_dim]; anything where the reduction is "attention".
        positions: int64 [Q], ascending columns of the query rows.
        key_mask: bool [B, S].
        mask: bool [B, heads, Q, S] by strides that may be zero, or None.
        causal, sliding_window, scaling, reduction: As in `relevance_step`.
        vendor: Whose GPU it is for.
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
        """What both kernels take."""
        _, batch, rows = self.weights.shape
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
            "active_rows": self.active_rows(),
            "key_mask": self.key_mask,
            "mask": mask,
            "batch": batch,
            "heads": heads,
            "rows": rows,
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

    def active_rows(self) -> Tensor:
        """int32 [B, 2]: first row that carries relevance to any target, and one past the last."""
        active = (self.weights != 0).any(dim=0)  # [B, Q]
        rows = active.shape[1]
        index = torch.arange(rows, device=active.device)
        first = torch.where(active, index, rows).amin(dim=1)
        last = torch.where(active, index + 1, 0).amax(dim=1)
        return torch.stack([first, last], dim=1).to(torch.int32)

    def row_launch(self, *, summed: bool) -> tuple[Launch, Tensor, Tensor]:
        """Describe `row_statistics`.

        Returns:
            The launch, log_sum_exp [B, heads, Q] and row_sum [T, B, heads, Q], both of which are
            only written in active rows; row_sum only if `summed`.
        """
        targets, batch, rows = self.weights.shape
        heads = self.query.shape[1]
        log_sum_exp = self.weights.new_zeros(batch, heads, rows)
        row_sum = self.weights.new_zeros(targets if summed else 0, batch, heads, rows)

        def grid(meta: Mapping[str, Any]) -> tuple[int, ...]:
            programs = batch * targets if summed else batch
            return (triton.cdiv(rows, meta["BLOCK_ROWS"]), heads, programs)

        arguments = {
            **self.arguments(),
            "log_sum_exp": log_sum_exp,
            "row_sum": row_sum if summed else log_sum_exp,
            "SUMMED": summed,
        }
        shipped = row_configs(self.widest_head(), self.query.dtype, self.vendor)
        return Launch(row_statistics, grid, arguments, shipped), log_sum_exp, row_sum

    def column_launch(self, log_sum_exp: Tensor) -> tuple[Launch, Tensor]:
        """Describe `column_sums`.

        Returns:
            The launch and out [T, B, heads, S].
        """
        targets, batch, _ = self.weights.shape
        heads, length = self.query.shape[1], self.key.shape[2]
        out = self.weights.new_empty(targets, batch, heads, length)
        at_once = 1 if targets == 1 else 2
        # For every column: how many query rows stand before it.
        columns = torch.arange(length + 1, device=self.positions.device)
        rows_before = torch.searchsorted(self.positions, columns).to(torch.int32)

        def grid(meta: Mapping[str, Any]) -> tuple[int, ...]:
            groups = triton.cdiv(targets, at_once)
            return (triton.cdiv(length, meta["BLOCK_KEYS"]), heads, batch * groups)

        arguments = {
            **self.arguments(),
            "weights": self.weights,
            "targets": targets,
            "rows_before": rows_before,
            "log_sum_exp": log_sum_exp,
            "out": out,
            "TARGETS_AT_ONCE": at_once,
        }
        shipped = column_configs(self.widest_head(), self.query.dtype, self.vendor)
        return Launch(column_sums, grid, arguments, shipped), out


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
    normalize_rows: bool,
    residual: bool,
    lse: Tensor | None,
) -> Tensor:
    """As the function of that name in the package, whose caller has checked the arguments."""
    batch, heads, rows, _ = query.shape
    length = key.shape[2]
    if r.numel() == 0 or rows == 0:
        return r.clone() if residual else torch.zeros_like(r)
    if query_positions is None:
        query_positions = torch.arange(rows, device=r.device)
    if key_mask is None:
        key_mask = torch.ones(batch, length, dtype=torch.bool, device=r.device)
    if mask is not None:
        mask = mask.expand(batch, heads, rows, length)
    problem = Problem(
        weights=r.index_select(-1, query_positions),
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
    log_sum_exp = lse
    if lse is None or normalize_rows:
        launch, log_sum_exp, row_sum = problem.row_launch(summed=normalize_rows)
        launch.run()
        if normalize_rows:
            total = row_sum.mean(dim=2)  # [T, B, Q]
            # Where a row carries nothing its sum may be anything, as the row may.
            counts = (total != 0) & (problem.weights != 0)
            weights = torch.where(counts, problem.weights / total, 0.0)
            problem = replace(problem, weights=weights)
    assert log_sum_exp is not None
    launch, out = problem.column_launch((log_sum_exp if lse is None else lse).contiguous())
    launch.run()
    folded = out.mean(dim=2)  # [T, B, S]
    return r + folded if residual else folded
