"""Check and time the Triton kernels on a GPU: `python kernels/benchmarks/timing.py`.

At the layer shapes of Qwen2-VL-7B, each kernel is compared with whole attention maps in float64,
then timed against its torch version and against eager attention of all tokens. Without a CUDA or
ROCm device the command says so and ends.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
from problems import HEAD_DIM, HEADS, KEY_HEADS, attention_problem, step_problem
from torch import Tensor

from hf_token_compress.kernels.instruction_attention import instruction_attention
from hf_token_compress.kernels.relevance_step import relevance_step

_TEXT_BEFORE = 15
_CHECKED_LENGTH = 700
"""Tokens of the comparison with float64, which is slow on a GPU."""

_LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}
"""Largest error of a result, relative to its largest value."""


def main(arguments: list[str] | None = None) -> int:
    """Check and time the kernels; 1 if a check fails."""
    parser = argparse.ArgumentParser(prog="python kernels/benchmarks/timing.py")
    parser.add_argument("--visual-tokens", type=int, nargs="+", default=[1500, 5000, 20000])
    parser.add_argument("--instruction", type=int, default=40, help="text tokens after them")
    parser.add_argument("--targets", type=int, default=2, help="answer tokens of a relevance step")
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("No CUDA or ROCm device is available: nothing is checked or measured.")
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    failures = check(torch.device("cuda"), chosen.instruction, chosen.targets)
    for failure in failures:
        print(failure, file=sys.stderr)
    print("| visual tokens | computation | triton | torch | eager, all queries |")
    print("|---|---|---|---|---|")
    for visual_tokens in chosen.visual_tokens:
        length = _TEXT_BEFORE + visual_tokens + chosen.instruction
        for line in _times(length, chosen.instruction, chosen.targets):
            print(f"| {visual_tokens:,} {line}")
    return 1 if failures else 0


def check(
    device: torch.device, instruction: int, targets: int, length: int = _CHECKED_LENGTH
) -> list[str]:
    """Compare the Triton kernels with whole maps in float64; one sentence per failure."""
    failures = []
    for dtype, limit in _LIMITS.items():
        attention = attention_problem(length, instruction, dtype, device)
        step = step_problem(length, targets, dtype, device)
        query, key = attention[0].transpose(0, 1), attention[1][0].transpose(0, 1)
        for name, ours, exact in (
            (
                "instruction_attention",
                instruction_attention(*attention, backend="triton"),
                _exact_attention(query, key).mean(dim=(0, 1))[None],
            ),
            ("relevance_step", relevance_step(*step, backend="triton"), _exact_step(*step)),
        ):
            error = relative_error(ours, exact)
            print(f"{name}, {dtype}: relative error {error:.1e}, at most {limit:.0e}")
            if not error <= limit:
                failures.append(f"{name} in {dtype} is off by {error:.1e}, more than {limit:.0e}.")
    return failures


def relative_error(result: Tensor, exact: Tensor) -> float:
    """Largest error along the last dimension, relative to its largest value."""
    error = (result.double() - exact.double()).abs().amax(-1)
    return float((error / exact.double().abs().amax(-1)).amax())


def _exact_attention(query: Tensor, key: Tensor) -> Tensor:
    """Float64 attention [..., heads, Q, S] of the last Q tokens to all keys."""
    key = key.double().repeat_interleave(HEADS // KEY_HEADS, -3)
    logits = query.double() @ key.mT * HEAD_DIM**-0.5  # [..., heads, Q, S]
    queries, length = logits.shape[-2:]
    seen = torch.ones(queries, length, dtype=torch.bool, device=key.device).tril(length - queries)
    return logits.masked_fill_(~seen, float("-inf")).softmax(-1)


def _exact_step(
    r: Tensor, query: Tensor, key: Tensor, value: Tensor, grad_output: Tensor
) -> Tensor:
    attention = _exact_attention(query, key)  # [B, heads, S, S]
    values = value.double().repeat_interleave(HEADS // KEY_HEADS, 1).mT
    results = []
    for relevance, gradient in zip(r.double(), grad_output.double(), strict=True):
        step = (attention * (gradient @ values)).clamp_(min=0).mean(1)  # [B, S, S]
        results.append(relevance + (relevance[:, None] @ step)[:, 0])  # [B, S]
    return torch.stack(results)  # [T, B, S]


def _times(length: int, instruction: int, targets: int) -> list[str]:
    device, dtype = torch.device("cuda"), torch.bfloat16
    attention = attention_problem(length, instruction, dtype, device)
    step = step_problem(length, targets, dtype, device)
    query, key = step[1], step[2]

    def attend(backend: str) -> str:
        return _cost(lambda: instruction_attention(*attention, backend=backend))

    def propagate(backend: str) -> str:
        return _cost(lambda: relevance_step(*step, backend=backend))

    eager = _cost(lambda: _eager(query, key, instruction))
    return [
        f"| `instruction_attention` | {attend('triton')} | {attend('torch')} | {eager} |",
        f"| `relevance_step`, {targets} targets | {propagate('triton')} | {propagate('torch')} | |",
    ]


def _eager(query: Tensor, key: Tensor, instruction: int) -> Tensor:
    """What eager attention does for the same scores: it has the maps of all tokens."""
    logits = query @ key.repeat_interleave(HEADS // KEY_HEADS, 1).mT * HEAD_DIM**-0.5
    above = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu_(1)
    attention = logits.masked_fill_(above, float("-inf")).softmax(-1, dtype=torch.float32)
    return attention[:, :, -instruction:].mean(dim=(1, 2))


def _cost(run: Callable[[], Tensor]) -> str:
    """Median time, and peak memory beyond the arguments."""
    from triton.testing import do_bench

    try:
        run()  # compiles and tunes
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        extra = torch.cuda.max_memory_allocated() - before
        return f"{do_bench(run, return_mode='median'):.3f} ms, {extra / 2**20:.1f} MiB"
    except torch.cuda.OutOfMemoryError:
        return "out of memory"


if __name__ == "__main__":
    sys.exit(main())
