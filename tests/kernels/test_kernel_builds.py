"""Ahead-of-time builds of the Triton kernels, without a GPU."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import resources
import torch
from matrix import full_only
from resources import Usage, compile_launch, shipped_cases, usage

from hf_token_compress.kernels.instruction_attention.triton_launch import launches
from hf_token_compress.kernels.launch import NVIDIA
from hf_token_compress.kernels.relevance_step.triton_launch import Problem

HEAD_DIMS = sorted({size for sizes in resources.HEAD_DIMS.values() for size in sizes})


@functools.cache
def usages_of(target: str, head_dim: int) -> list[Usage]:
    return [usage(case) for case in shipped_cases([target]) if case.head_dim == head_dim]


each_build = pytest.mark.parametrize(
    ("target", "head_dim"),
    [
        (name, size) if (name, size) == ("sm_90", 128) else full_only(name, size)
        for name in resources.TARGETS
        for size in HEAD_DIMS
    ],
)


@each_build
def test_no_shipped_build_has_a_fault(target: str, head_dim: int) -> None:
    """No spilled registers, little enough shared memory, all products on the matrix units."""
    own = usages_of(target, head_dim)
    assert {one.case.kernel for one in own} == {
        "log_sum_exp_of_tiles",
        "sum_over_queries",
        "query_statistics",
        "key_sums",
    }
    expected = {dtype for dtype, sizes in resources.HEAD_DIMS.items() if head_dim in sizes}
    assert {one.case.dtype for one in own} == expected
    faults = [(one.case, one.config, fault) for one in own for fault in one.faults()]
    assert faults == []


@each_build
def test_half_precision_is_on_the_newest_matrix_unit(target: str, head_dim: int) -> None:
    names = {"sm_80": "HMMA.16816", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "v_mfma_f32"}
    for one in usages_of(target, head_dim):
        if one.case.dtype == torch.bfloat16:
            expected = names[target]
            assert all(name.startswith(expected) for name in one.instructions), one


def test_faults_are_reported() -> None:
    """A build that spills, one that is too large, and two outside the matrix units."""
    case = next(iter(shipped_cases(["sm_80"])))
    good = Usage(case, "", 100, 0, 1024, ("HMMA",), 0)
    assert good.faults() == []
    for changes, word in (
        ({"spilled": 8}, "spilled"),
        ({"shared": 200 * 1024}, "shared memory"),
        ({"instructions": ()}, "matrix units"),
        ({"scalar_products": 1}, "matrix units"),
    ):
        faults = Usage(**{**vars(good), **changes}).faults()
        assert len(faults) == 1
        assert word in faults[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, full_only(torch.float16)])
def test_sizes_of_one_are_compiled_too(dtype: torch.dtype) -> None:
    """A launch passes sizes of 1 as constants, so kernels see numbers instead of tensors."""
    query = torch.empty(1, 1, 32, dtype=dtype, device="meta")
    key = torch.empty(1, 1, 1, 32, dtype=dtype, device="meta")
    index = torch.empty(1, dtype=torch.int64, device="meta")
    mask = torch.empty(1, 1, dtype=torch.bool, device="meta")
    options: dict[str, Any] = {"scaling": 1.0, "sliding_window": 1, "vendor": NVIDIA}
    first, second, *_ = launches(query, key, index, index, mask, per_head=False, **options)
    problem = Problem(
        weights=torch.empty(1, 1, 1, device="meta"),
        query=key,
        key=key,
        value=key,
        grad_output=key[None],
        positions=index,
        key_mask=mask,
        mask=mask.expand(1, 1, 1, 1),
        causal=True,
        reduction="positive",
        **options,
    )
    third, log_sum_exp, _ = problem.statistics_launch(summed=True)
    fourth, _ = problem.sums_launch(log_sum_exp)
    for launch in (first, second, third, fourth):
        built = compile_launch(launch, launch.configs[0], resources.TARGETS["sm_80"].gpu)
        assert built.asm["cubin"]
