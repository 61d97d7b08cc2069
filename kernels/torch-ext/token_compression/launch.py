"""One launch of a Triton kernel, described before it happens.

The description serves three: a GPU runs it, the interpreter runs it on the CPU, and the
ahead-of-time gate compiles it for GPUs that are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton

from .backend import interpreted

Grid = Callable[[Mapping[str, Any]], "tuple[int, ...]"]

NVIDIA = "nvidia"
AMD = "amd"


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid and its arguments.

    Attributes:
        kernel: The `triton.jit` function.
        grid: From all arguments, those of the configuration included, to the grid.
        arguments: Every argument but those of the configuration, by name; `query` is one.
        configs: What the autotuner may choose from; the first one is sane everywhere.
        tuned_by: Arguments whose change makes the autotuner measure again.
    """

    kernel: Any
    grid: Grid
    arguments: dict[str, Any]
    configs: tuple[triton.Config, ...]
    tuned_by: tuple[str, ...] = ("HEAD_DIM",)

    def run(self, config: triton.Config | None = None) -> None:
        """Launch on the device of the query.

        Args:
            config: Use this one; by default the autotuner chooses, or the interpreter takes the
                first.
        """
        if config is None and (len(self.configs) == 1 or not hasattr(self.kernel, "cache_key")):
            config = self.configs[0]
        with torch.cuda.device_of(self.arguments["query"]):
            if config is not None:
                self.kernel[self.grid](**self.arguments, **config.all_kwargs())
            else:
                _tuner(self.kernel, self.configs, self.tuned_by)[self.grid](**self.arguments)


@cache
def _tuner(kernel: Any, configs: tuple[triton.Config, ...], tuned_by: tuple[str, ...]) -> Any:
    return triton.autotune(configs=list(configs), key=list(tuned_by))(kernel)


def current_vendor() -> str:
    """Whose GPUs this build of torch drives."""
    return AMD if torch.version.hip is not None else NVIDIA


def head_split(head_dim: int, dtype: torch.dtype) -> tuple[int, int]:
    """Two widths that together cover a head, as Triton's tiles are powers of two from 16 on.

    80 becomes 64 + 16 rather than 128, so that a third of the work is not done on zeros.

    Returns:
        Width of the main part, and of the rest or 0; (0, 0) in single precision, where the head is
        streamed (see `tiles`).
    """
    if dtype == torch.float32:
        return 0, 0
    main = max(16, 2 ** (head_dim.bit_length() - 1))
    rest = head_dim - main
    return main, (max(16, triton.next_power_of_2(rest)) if rest > 0 else 0)


def dot_precision(dtype: torch.dtype, vendor: str) -> str:
    """How `tiles.products` multiplies: single precision in full, on the target's matrix units.

    NVIDIA's matrix units split each float32 factor into two TF32 (3 products); AMD's take float32
    as it is. Products of half precision are exact in float32, in which all of them are summed.
    Triton's interpreter multiplies the bits of bfloat16, so there it is widened first.
    """
    if dtype == torch.float32:
        return "tf32x3" if vendor == NVIDIA else "ieee"
    return "widened" if dtype == torch.bfloat16 and interpreted() else "ieee"
