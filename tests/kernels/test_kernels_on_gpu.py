"""The Triton kernels, scoring and explaining on a real GPU, against float64 and the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import test_instruction_attention_triton as attention
import test_relevance_step_triton as step
import torch
from hypothesis import given, settings
from torch import Tensor

from hf_token_compress import TokenCompressionConfig, load_tiny
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.scenes import CLIP_KINDS, KINDS
from hf_token_compress.evaluation import clip_samples, scene_samples
from hf_token_compress.evaluation.answering import answer_samples
from hf_token_compress.kernels.instruction_attention import instruction_attention
from hf_token_compress.kernels.relevance_step import relevance_step
from hf_token_compress.relevance import relevance

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def on_gpu(problem: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.cuda() if isinstance(v, Tensor) else v for k, v in problem.items()}


@settings(max_examples=12)
@given(problem=attention.problems())
def test_instruction_attention_equals_float64(problem: dict[str, Any]) -> None:
    expected = attention.dense(*problem.values()).mean(1)
    result = instruction_attention(**on_gpu(problem), backend="triton").cpu()
    limit = LIMITS[problem["query"].dtype]
    assert attention.relative_to_row_maximum(result, expected) <= limit


@pytest.mark.parametrize("head_dim", [64, 128])
def test_instruction_attention_of_all_head_sizes(head_dim: int) -> None:
    for dtype, limit in LIMITS.items():
        problem = attention.random_problem(dtype, head_dim=head_dim, length=300, rows=5)
        expected = attention.dense(*problem.values(), head_dim**-0.5, None).mean(1)
        result = instruction_attention(**on_gpu(problem), backend="triton").cpu()
        assert attention.relative_to_row_maximum(result, expected) <= limit


@settings(max_examples=12)
@given(problem=step.problems())
def test_relevance_step_equals_float64(problem: dict[str, Any]) -> None:
    expected = step.dense(**problem)
    result = relevance_step(**on_gpu(problem), backend="triton").cpu()
    error = (result.double() - expected).abs().amax(-1)
    limit = LIMITS[problem["query"].dtype]
    assert (error <= limit * expected.abs().amax(-1).clamp(min=1e-3)).all()


@pytest.mark.parametrize("head_dim", [64, 128])
def test_relevance_step_of_all_head_sizes(head_dim: int) -> None:
    for dtype, limit in LIMITS.items():
        problem = step.random_problem(head_dim=head_dim, length=200, key_heads=2, dtype=dtype)
        expected = step.dense(**problem)
        result = relevance_step(**on_gpu(problem), backend="triton").cpu()
        error = (result.double() - expected).abs().amax(-1)
        assert (error <= limit * expected.abs().amax(-1)).all()


@pytest.mark.parametrize("name", ["qwen2-vl", "llava-onevision", "vila"])
@pytest.mark.parametrize("scorer", ["mapper", "attention"])
def test_a_gpu_answers_and_keeps_as_a_cpu(name: str, scorer: str) -> None:
    setting = TokenCompressionConfig(
        retention_ratio=0.25, scorer=scorer, mapper=f"tiny-{name}" if scorer == "mapper" else None
    )
    model, processor = load_tiny(name, token_compression=setting)
    samples = scene_samples(KINDS, 2)
    if name != "qwen2-vl":
        samples += clip_samples(CLIP_KINDS, 2)
    kept, answers = {}, {}
    for device in ("cpu", "cuda"):
        model.to(device)
        for index, sample in enumerate(samples):
            answers[device, index] = answer_samples(model, processor, [sample])
            kept[device, index] = model.token_compression.last.samples[0].kept_indices.cpu()
    same = [torch.equal(kept["cpu", i], kept["cuda", i]) for i in range(len(samples))]
    # Scores that are equal but for rounding may change places.
    assert sum(same) >= len(samples) - 1
    assert all(answers["cpu", i] == answers["cuda", i] for i, equal in enumerate(same) if equal)


@pytest.mark.parametrize("rule", ["gae", "edges_absolute"])
def test_a_gpu_explains_as_a_cpu(rule: str) -> None:
    model, processor = load_tiny("qwen2-vl")
    inputs = encode_samples(processor, scene_samples(["place", "colour"], 2))
    found = {}
    for device in ("cpu", "cuda"):
        found[device] = relevance(model.to(device), inputs.to(device), rule=rule)
    for ours, theirs in zip(found["cuda"].samples, found["cpu"].samples, strict=True):
        expected = theirs.scores
        torch.testing.assert_close(
            ours.scores.cpu(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
