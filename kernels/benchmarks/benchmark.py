"""Workloads of `kernels benchmark`, the command of Hugging Face's package `kernels`.

Build the kernel and time it against its torch version, from the root of the repository:

    (cd kernels && kernel-builder build-and-copy)
    kernels benchmark ./kernels

The kernel builder uploads this file without its neighbours, so it imports none of them.
"""

from __future__ import annotations

import torch
from kernels.benchmark import Benchmark
from torch import Tensor

_HEADS, _KEY_HEADS, _HEAD_DIM = 28, 4, 128
_INSTRUCTION, _LENGTH = 40, 1555
_LARGEST_ERROR = 2e-2


class Qwen2VL7B(Benchmark):
    """A decoder layer of Qwen2-VL-7B: 1,500 visual tokens, then 40 of the instruction, bfloat16."""

    seed = 0

    def setup_instruction_attention(self) -> None:
        """The instruction tokens attend to everything before them."""
        self.arguments = (
            self._normal(_INSTRUCTION, _HEADS, _HEAD_DIM),
            self._normal(1, _LENGTH, _KEY_HEADS, _HEAD_DIM),
            torch.zeros(_INSTRUCTION, dtype=torch.int64, device=self.device),
            torch.arange(_LENGTH - _INSTRUCTION, _LENGTH, device=self.device),
            torch.ones(1, _LENGTH, dtype=torch.bool, device=self.device),
        )

    def benchmark_instruction_attention(self) -> None:
        """Score all keys."""
        self.out = self._instruction_attention()

    def verify_instruction_attention(self) -> Tensor:
        """The torch version's scores."""
        return self._checked(self._instruction_attention(backend="torch"))

    def setup_relevance_step(self) -> None:
        """Every token carries relevance to one target."""
        self.arguments = (
            torch.rand(1, 1, _LENGTH, device=self.device),
            self._normal(1, _HEADS, _LENGTH, _HEAD_DIM),
            self._normal(1, _KEY_HEADS, _LENGTH, _HEAD_DIM),
            self._normal(1, _KEY_HEADS, _LENGTH, _HEAD_DIM),
            self._normal(1, 1, _HEADS, _LENGTH, _HEAD_DIM),
        )

    def benchmark_relevance_step(self) -> None:
        """Propagate through one layer."""
        self.out = self._relevance_step()

    def verify_relevance_step(self) -> Tensor:
        """The torch version's relevance."""
        return self._checked(self._relevance_step(backend="torch"))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=torch.bfloat16)

    def _instruction_attention(self, backend: str | None = None) -> Tensor:
        kernel = self.kernel.instruction_attention.instruction_attention
        return kernel(*self.arguments, backend=backend)

    def _relevance_step(self, backend: str | None = None) -> Tensor:
        return self.kernel.relevance_step.relevance_step(*self.arguments, backend=backend)

    def _checked(self, expected: Tensor) -> Tensor:
        # The runner tolerates errors of 0.01, which is more than most attention weights.
        error = float((self.out - expected).abs().max() / expected.abs().max())
        if not error <= _LARGEST_ERROR:
            raise RuntimeError(
                f"The kernel differs from its torch version by {error:.1e} of the largest value, "
                f"more than {_LARGEST_ERROR:.0e}."
            )
        return expected
