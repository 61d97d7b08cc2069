"""What the kernels must move and compute, and the time that takes at a GPU's limits.

`python kernels/benchmarks/roofline.py` prints tables for the layer shapes of Qwen2-VL-7B. It is a
model, not a measurement: it counts bytes and operations from shapes and assumes perfect caches, so
that each tensor passes once per launch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from problems import HEAD_DIM, HEADS, KEY_HEADS

_HALF, _SINGLE = 2, 4
_BLOCK_KEYS = 64


@dataclass(frozen=True)
class Limits:
    """A GPU's peak rates.

    Attributes:
        name: The GPU.
        bandwidth: Bytes per second of its memory.
        flops: Half-precision operations per second of its matrix units, without sparsity.
        exponentials: Per second, of all special function units.
    """

    name: str
    bandwidth: float
    flops: float
    exponentials: float


H100 = Limits("H100 SXM", 3.35e12, 989e12, 132 * 16 * 1.83e9)
"""NVIDIA's data sheet; 132 multiprocessors do 16 exponentials per clock each, at 1.83 GHz."""


@dataclass(frozen=True)
class Work:
    """What one computation takes.

    Attributes:
        name: The computation.
        moved: Bytes between GPU and its memory, each tensor read or written once per launch.
        flops: Operations in matrix products.
        exponentials: Exponentials.
    """

    name: str
    moved: float
    flops: float
    exponentials: float

    def seconds(self, limits: Limits) -> float:
        """The least time, with perfect overlap and free launches."""
        return max(
            self.moved / limits.bandwidth,
            self.flops / limits.flops,
            self.exponentials / limits.exponentials,
        )


def instruction_attention(length: int, instruction: int) -> Work:
    """Both launches and the sum between them, in bf16.

    Both launches read keys and queries. The partial sums are written once and read once.
    """
    tiles = -(-length // _BLOCK_KEYS)
    keys = length * KEY_HEADS * HEAD_DIM * _HALF
    queries = instruction * HEADS * HEAD_DIM * _HALF
    partial = tiles * instruction * HEADS * _SINGLE
    out = length * KEY_HEADS * _SINGLE
    cells = instruction * HEADS * length
    return Work(
        "`instruction_attention`",
        moved=2 * (keys + queries) + 2 * partial + 2 * instruction * HEADS * _SINGLE + 2 * out,
        flops=2 * 2 * cells * HEAD_DIM,
        exponentials=2 * cells,
    )


def relevance_step(length: int, targets: int = 1) -> Work:
    """One causal layer in bf16 without a saved log-sum-exp.

    The statistics of the queries take the logits once, the sums over queries once per two targets,
    and the gradients of attention once per target.
    """
    queries = length * HEADS * HEAD_DIM * _HALF
    keys = length * KEY_HEADS * HEAD_DIM * _HALF
    sums = targets * length * HEADS * _SINGLE
    cells = HEADS * length * (length + 1) / 2
    pairs = -(-targets // 2)
    return Work(
        f"`relevance_step`, {targets} target{'s' if targets > 1 else ''}",
        moved=(queries + keys) + (queries + 2 * keys + targets * queries) + 2 * sums,
        flops=2 * cells * HEAD_DIM * (1 + pairs + targets),
        exponentials=cells * (1 + pairs),
    )


def eager_attention(length: int) -> Work:
    """Eager attention of one layer for all tokens: logits written, softmax read and written, read.

    That is the least that eager execution can do; masks, casts and scaling come on top of it.
    """
    queries = length * HEADS * HEAD_DIM * _HALF
    keys = length * KEY_HEADS * HEAD_DIM * _HALF
    cells = HEADS * length * length
    return Work(
        "eager attention, all queries",
        moved=2 * queries + 2 * keys + 4 * cells * _HALF,
        flops=2 * 2 * cells * HEAD_DIM,
        exponentials=cells,
    )


def stored_relevance(length: int) -> Work:
    """The step from a stored map and its gradient: both are written once and read once."""
    cells = HEADS * length * length
    return Work(
        "step from stored maps, 1 target",
        moved=2 * 2 * cells * _HALF,
        flops=2 * cells,
        exponentials=0,
    )


def _table(visual_tokens: int, instruction: int, limits: Limits) -> Iterator[str]:
    length = visual_tokens + instruction + 15
    yield f"{visual_tokens:,} visual tokens, {instruction} instruction tokens, bf16, {limits.name}:"
    yield ""
    yield "| computation | MB moved | GFLOP | G exponentials | limited by | at the limit |"
    yield "|---|---|---|---|---|---|"
    for work in (
        instruction_attention(length, instruction),
        eager_attention(length),
        relevance_step(length),
        relevance_step(length, targets=8),
        stored_relevance(length),
    ):
        seconds = work.seconds(limits)
        limit = {
            work.moved / limits.bandwidth: "memory",
            work.flops / limits.flops: "matrix units",
            work.exponentials / limits.exponentials: "exponentials",
        }[seconds]
        yield (
            f"| {work.name} | {work.moved / 1e6:,.1f} | {work.flops / 1e9:,.2f} "
            f"| {work.exponentials / 1e9:,.3f} | {limit} | {_duration(seconds)} |"
        )


def _duration(seconds: float) -> str:
    return f"{1e6 * seconds:,.1f} µs" if seconds < 1e-3 else f"{1e3 * seconds:,.2f} ms"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python kernels/benchmarks/roofline.py")
    parser.add_argument("--visual-tokens", type=int, nargs="+", default=[1500, 20000])
    parser.add_argument("--instruction", type=int, default=40, help="text tokens after them")
    chosen = parser.parse_args(arguments)
    for visual_tokens in chosen.visual_tokens:
        for line in _table(visual_tokens, chosen.instruction, H100):
            print(line)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
