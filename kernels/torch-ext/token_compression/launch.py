"""The description of one launch of a Triton kernel.

A GPU runs it, Triton's interpreter runs it on the CPU, and tests compile it for GPUs that they do
not have.
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
        grid: Maps all arguments, including those of the configuration, to the grid.
        arguments: Every argument outside the configuration by name; `query` is one of them.
        configs: Configurations that the autotuner may choose from; the first one works everywhere.
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
            config: Configuration to use. By default the autotuner chooses one, and the interpreter
                takes the first.
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
    """The vendor of the GPUs that this build of torch drives."""
    return AMD if torch.version.hip is not None else NVIDIA


def head_split(head_dim: int, dtype: torch.dtype) -> tuple[int, int]:
    """Split a head into two widths that Triton's tiles can have: powers of two from 16 on.

    80 becomes 64 + 16 rather than 128, which would spend a third of the work on zeros.

    Returns:
        Widths of the main part and of the rest, which may be 0; (0, 0) in single precision, where
        the head is streamed (see `tiles`).
    """
    if dtype == torch.float32:
        return 0, 0
    main = max(16, 2 ** (head_dim.bit_length() - 1))
    rest = head_dim - main
    return main, (max(16, triton.next_power_of_2(rest)) if rest > 0 else 0)


def dot_precision(dtype: torch.dtype, vendor: str) -> str:
    """How `tiles.products` multiplies: in full precision, on the target's matrix units.

    NVIDIA's matrix units take each float32 factor as two TF32 parts (three products); AMD's take
    float32 itself. Products of half precision are exact in float32, in which all sums are taken.
    Triton's interpreter would multiply the bits of bfloat16, so they are widened first there.
    """
    if dtype == torch.float32:
        return "tf32x3" if vendor == NVIDIA else "ieee"
    return "widened" if dtype == torch.bfloat16 and interpreted() else "ieee"
