"""Registers, shared memory and matrix instructions of the shipped kernels, without a GPU.

`python kernels/benchmarks/resources.py` compiles every kernel with every shipped configuration for
every target, prints a table, and fails if a build spills registers, needs more shared memory than
its target has, or multiplies matrices outside the matrix units.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from problems import HEADS, KEY_HEADS
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hf_token_compress.kernels.instruction_attention.triton_launch import (
    launches as attention_launches,
)
from hf_token_compress.kernels.launch import AMD, NVIDIA, Launch
from hf_token_compress.kernels.relevance_step.triton_launch import Problem

HEAD_DIMS = {torch.bfloat16: (64, 96, 128, 256), torch.float32: (80, 128)}
"""What is built for each dtype: every configuration, with a head in one part and in two.

float16 builds differ from bfloat16 only in the names of instructions. Single precision streams the
head, so its size is only the length of a loop.
"""

_KIB = 1024
_POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Target:
    """A GPU to build for.

    Attributes:
        gpu: What Triton calls it.
        vendor: Whose configurations it gets.
        shared_limit: Bytes of shared memory that one program may have.
        example: A card of this kind.
    """

    gpu: GPUTarget
    vendor: str
    shared_limit: int
    example: str


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), NVIDIA, 163 * _KIB, "A100"),
    "sm_90": Target(GPUTarget("cuda", 90, 32), NVIDIA, 227 * _KIB, "H100"),
    "sm_100": Target(GPUTarget("cuda", 100, 32), NVIDIA, 227 * _KIB, "B200"),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), AMD, 64 * _KIB, "MI300X"),
}


@dataclass(frozen=True)
class Case:
    """One build.

    Attributes:
        kernel: Its name.
        head_dim: Size of a head.
        dtype: Dtype of queries, keys, values and gradients.
        config: Index of its configuration.
        target: Name of the GPU.
        options: Build with a window, a mask, separate heads and their peaks.
    """

    kernel: str
    head_dim: int
    dtype: torch.dtype
    config: int
    target: str
    options: bool = False


@dataclass(frozen=True)
class Usage:
    """What one build needs.

    Attributes:
        case: The build.
        config: Its configuration, in words.
        registers: Per thread (vector registers on AMD).
        spilled: Bytes of stack per thread, which is where spilled registers go.
        shared: Bytes of shared memory per program.
        instructions: Matrix instructions in the machine code.
        scalar_products: Matrix products outside the matrix units.
    """

    case: Case
    config: str
    registers: int
    spilled: int
    shared: int
    instructions: tuple[str, ...]
    scalar_products: int

    def faults(self) -> list[str]:
        """One phrase per fault; empty for a build that is fit to ship."""
        limit = TARGETS[self.case.target].shared_limit
        found = []
        if self.spilled:
            found.append(f"{self.spilled} bytes of registers are spilled")
        if self.shared > limit:
            found.append(f"{self.shared} bytes of shared memory are more than {limit}")
        if self.scalar_products or not self.instructions:
            found.append("a matrix product is not on the matrix units")
        return found


def shipped_cases(targets: Iterable[str] = tuple(TARGETS)) -> Iterator[Case]:
    """Every build that is checked: kernels × head sizes × dtypes × configurations × targets.

    Heads of 128 in half precision are built once more with all options.
    """
    for target in targets:
        for dtype, head_dims in HEAD_DIMS.items():
            for head_dim in head_dims:
                for launch in _launches(head_dim, dtype, TARGETS[target].vendor):
                    for config in range(len(launch.configs)):
                        case = Case(launch.kernel.__name__, head_dim, dtype, config, target)
                        yield case
                        if (head_dim, dtype) == (128, torch.bfloat16):
                            yield replace(case, options=True)


def usage(case: Case) -> Usage:
    """Compile one case and read its resources.

    Raises:
        RuntimeError: Triton's interpreter is on.
    """
    target = TARGETS[case.target]
    launch = next(
        launch
        for launch in _launches(case.head_dim, case.dtype, target.vendor, options=case.options)
        if launch.kernel.__name__ == case.kernel
    )
    config = launch.configs[case.config]
    built = compile_launch(launch, config, target.gpu)
    registers, spilled, code = (_amd if target.vendor == AMD else _nvidia)(built)
    found = re.findall(r"\bv_mfma_\w+|\b\w*[HQ]G?MMA[\w.]*|\bUTC\w*MMA[\w.]*", code)
    return Usage(
        case=case,
        config=_describe(config),
        registers=registers,
        spilled=spilled,
        shared=built.metadata.shared,
        instructions=tuple(sorted(set(found))),
        scalar_products=len(re.findall(r"tt\.dot .*parent = #blocked", built.asm["ttgir"])),
    )


def compile_launch(launch: Launch, config: triton.Config, gpu: GPUTarget) -> Any:
    """Build what `launch.run(config)` would build on that GPU.

    Pointers, and sizes that are multiples of 16, are declared as such, as in a launch.

    Raises:
        RuntimeError: Triton's interpreter is on.
    """
    kernel = launch.kernel
    if not hasattr(kernel, "cache_key"):
        raise RuntimeError("Kernels cannot be compiled while TRITON_INTERPRET is set: unset it.")
    arguments = {**launch.arguments, **config.kwargs}
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        aligned = isinstance(value, torch.Tensor)
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[(index,)] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = _POINTERS[value.dtype]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        elif value == 1:
            signature[parameter.name] = "constexpr"
            constants[(index,)] = value
        else:
            signature[parameter.name] = "i32"
            aligned = value % 16 == 0
        if aligned:
            attributes[(index,)] = [["tt.divisibility", 16]]
    return triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=gpu,
        options={"num_warps": config.num_warps, "num_stages": config.num_stages},
    )


def all_usages(cases: Iterable[Case], workers: int | None = None) -> list[Usage]:
    """Compile cases in parallel processes.

    Args:
        cases: What to build.
        workers: Number of processes; by default one per CPU.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
        return list(pool.map(usage, cases))


def _launches(
    head_dim: int, dtype: torch.dtype, vendor: str, *, options: bool = False
) -> list[Launch]:
    """The launches of all kernels at the layer shapes of Qwen2-VL-7B, on meta tensors."""
    sliding_window = 256 if options else None
    samples, length, instruction = 1, 1536, 48
    query = torch.empty(instruction, HEADS, head_dim, dtype=dtype, device="meta")
    key = torch.empty(samples, length, KEY_HEADS, head_dim, dtype=dtype, device="meta")
    index = torch.empty(instruction, dtype=torch.int64, device="meta")
    mask = torch.empty(samples, length, dtype=torch.bool, device="meta")
    first, second, *_ = attention_launches(
        query,
        key,
        index,
        index,
        mask,
        scaling=head_dim**-0.5,
        sliding_window=sliding_window,
        per_head=options,
        vendor=vendor,
        among=mask if options else None,
        query_counts=[instruction] if options else None,
    )
    targets = 2
    keys = torch.empty(samples, KEY_HEADS, length, head_dim, dtype=dtype, device="meta")
    gradients = torch.empty(targets, samples, HEADS, length, head_dim, dtype=dtype, device="meta")
    problem = Problem(
        weights=torch.empty(targets, samples, length, device="meta"),
        query=gradients[0],
        key=keys,
        value=keys,
        grad_output=gradients,
        positions=torch.empty(length, dtype=torch.int64, device="meta"),
        key_mask=mask,
        mask=torch.empty(samples, HEADS, length, length, dtype=torch.bool, device="meta")
        if options
        else None,
        causal=True,
        sliding_window=sliding_window,
        scaling=head_dim**-0.5,
        reduction="positive",
        vendor=vendor,
    )
    third, log_sum_exp, _ = problem.statistics_launch(summed=True)
    fourth, _ = problem.sums_launch(log_sum_exp)
    return [first, second, third, fourth]


def _nvidia(built: Any) -> tuple[int, int, str]:
    """Registers, bytes of stack and machine code, read from the binary by NVIDIA's tool."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(built.asm["cubin"])

        def read(option: str) -> str:
            command = [str(tool), option, str(binary)]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        report, code = read("--dump-resource-usage"), read("--dump-sass")
    numbers = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", report)}
    return numbers["REG"], numbers["STACK"] + numbers["LOCAL"], code


def _amd(built: Any) -> tuple[int, int, str]:
    """Vector registers, bytes of scratch and machine code, from AMD's assembly."""
    code: str = built.asm["amdgcn"]

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s*(\d+)", code)
        if found is None:
            raise RuntimeError(f"The build of {built.metadata.name} does not say its {name}.")
        return int(found.group(1))

    return number("vgpr_count"), number("private_segment_fixed_size"), code


def _describe(config: triton.Config) -> str:
    sizes = " × ".join(str(value) for value in config.kwargs.values())
    return f"{sizes}, {config.num_warps} warps, {config.num_stages} stages"


def _table(usages: Iterable[Usage]) -> Iterator[str]:
    columns = (
        "target", "kernel", "head", "dtype", "tile", "registers", "spilled B", "shared KiB",
        "matrix instructions",
    )  # fmt: skip
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for one in usages:
        case = one.case
        cells = (
            f"{case.target}",
            f"`{case.kernel}`" + (", options" if case.options else ""),
            f"{case.head_dim}",
            str(case.dtype).removeprefix("torch."),
            one.config,
            f"{one.registers}",
            f"{one.spilled}",
            f"{one.shared / _KIB:.1f}",
            ", ".join(f"`{name}`" for name in one.instructions),
        )
        yield "| " + " | ".join(cells) + " |"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a build has a fault."""
    parser = argparse.ArgumentParser(prog="python kernels/benchmarks/resources.py")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="by default all")
    parser.add_argument("--head-dim", action="append", type=int, help="by default all")
    chosen = parser.parse_args(arguments)
    cases = [
        case
        for case in shipped_cases(chosen.target or TARGETS)
        if not chosen.head_dim or case.head_dim in chosen.head_dim
    ]
    usages = all_usages(cases)
    for line in _table(usages):
        print(line)
    bad = [(one, fault) for one in usages for fault in one.faults()]
    for one, fault in bad:
        print(f"{one.case}, {one.config}: {fault}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
