"""Relevance in linear memory against stored maps and the whole matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from relevance_reference import (
    edge_sums,
    normalized_matrix,
    relevance_matrix,
    stored_maps,
)
from tiny_models import (
    FAMILIES,
    IMAGE,
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    TEXT_IDS,
    TWO_IMAGES,
    TWO_TURNS,
    VIDEO,
    make_inputs,
    tiny_model,
)
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from hf_token_compress import TokenCompressionConfig, compress
from hf_token_compress.relevance import relevance, token_relevance

pytestmark = pytest.mark.core

BATCH = (ONE_IMAGE, TWO_TURNS, TWO_IMAGES, IMAGE_AND_VIDEO)
ANSWERS = [torch.tensor(ids) for ids in ([3], [5, 7, 9], [11, 2], [1, 40, 41, 42])]


def assert_equal_relevance(actual: Tensor, expected: Tensor) -> None:
    """Equal within 1e-5 of the largest, and in the same order."""
    assert actual.dtype == torch.float32
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * scale)
    # In order: wherever the reference tells two tokens apart beyond rounding.
    order = expected.argsort(stable=True)
    assert (actual[order].diff() > -2e-5 * scale).all()


def with_answer(inputs: dict[str, Tensor], answer: Tensor) -> tuple[dict[str, Tensor], int]:
    """One unpadded prompt with its answer behind it, and the row that predicts its first token."""
    extra = answer[None, :-1]
    behind = {
        "input_ids": extra,
        "attention_mask": torch.ones_like(extra),
        "mm_token_type_ids": torch.zeros_like(extra),
    }
    longer = {
        name: torch.cat([value, behind[name]], dim=1) if name in behind else value
        for name, value in inputs.items()
    }
    return longer, inputs["input_ids"].shape[1] - 1


def reference_rows(prompt: Any, answer: Tensor, what: str, family: str) -> Tensor:
    """[T, N] by the reference, one prompt at a time."""
    inputs, first = with_answer(make_inputs([prompt], family=family), answer)
    visual = torch.isin(inputs["input_ids"][0], torch.tensor([IMAGE, VIDEO]))
    model = tiny_model("eager", family=family)
    rows = []
    for number, token in enumerate(answer.tolist()):
        maps = stored_maps(model, inputs, first + number, token)
        if what == "gae":
            found = relevance_matrix(maps)[first + number]
        elif what == "gae_normalized":
            found = normalized_matrix(maps)[first + number]
        else:
            magnitude = torch.abs if what == "edges_absolute" else lambda x: x.clamp(min=0)
            found = edge_sums(maps, ~visual, magnitude)
        rows.append(found[visual])
    return torch.stack(rows)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rule", ["gae", "gae_normalized", "edges_positive", "edges_absolute"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_ragged_batch_equals_the_equations(family: str, rule: str, side: Any) -> None:
    """GQA, padding, several images and videos, tiles and newlines, answers of 1 to 4 tokens."""
    report = relevance(
        tiny_model(family=family),
        make_inputs(BATCH, family=family, padding_side=side),
        answer_ids=ANSWERS,
        rule=rule,
        per_token_rows=True,
    )
    for prompt, answer, sample in zip(BATCH, ANSWERS, report.samples, strict=True):
        expected = reference_rows(prompt, answer, rule, family)
        assert sample.per_token.shape == expected.shape
        for actual_row, expected_row in zip(sample.per_token, expected, strict=True):
            assert_equal_relevance(actual_row, expected_row)
        assert_equal_relevance(sample.scores, expected.mean(0))
        assert torch.equal(sample.answer_ids, answer)


def language_model(
    kind: str, attention: str, heads: int, key_heads: int, layers: int, window: int | None
) -> Any:
    common: dict[str, Any] = {
        "vocab_size": TEXT_IDS,
        "hidden_size": 8 * heads,
        "intermediate_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "initializer_range": 0.3,
        "attn_implementation": attention,
    }
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**common)).eval()
    windows: dict[str, Any] = {}
    if window is not None:
        windows = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
    return Qwen2ForCausalLM(Qwen2Config(**common, **windows)).eval()


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    key_heads, group = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 3]))
    lengths = draw(st.lists(st.integers(1, 14), min_size=1, max_size=3))
    return {
        "kind": draw(st.sampled_from(["qwen2", "llama"])),
        "heads": key_heads * group,
        "key_heads": key_heads,
        "layers": draw(st.integers(1, 4)),
        "window": draw(st.none() | st.integers(2, 9)),
        "lengths": lengths,
        "answers": [draw(st.integers(1, 3)) for _ in lengths],
        "side": draw(st.sampled_from(["left", "right"])),
        "checkpointing": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


@given(problem=problems())
@settings(max_examples=40)
def test_language_models_equal_the_equations(problem: dict[str, Any]) -> None:
    shape = [problem[name] for name in ("heads", "key_heads", "layers", "window")]
    generator = torch.Generator().manual_seed(problem["seed"])

    def ids(count: int) -> Tensor:
        return torch.randint(0, TEXT_IDS, (count,), generator=generator)

    prompts = [ids(length) for length in problem["lengths"]]
    answers = [ids(count) for count in problem["answers"]]
    input_ids, mask = padded(prompts, problem["side"])
    found = token_relevance(
        language_model(problem["kind"], "sdpa", *shape),
        input_ids,
        answers,
        attention_mask=mask,
        checkpointing=problem["checkpointing"],
    )
    eager = language_model(problem["kind"], "eager", *shape)
    for prompt, answer, actual in zip(prompts, answers, found, strict=True):
        whole = {"input_ids": torch.cat([prompt, answer[:-1]])[None]}
        for number, token in enumerate(answer.tolist()):
            row = len(prompt) - 1 + number
            expected = relevance_matrix(stored_maps(eager, whole, row, token))[row]
            assert_equal_relevance(actual[number], expected[: len(prompt)])


def padded(rows: Sequence[Tensor], side: str) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        ids[number, place], mask[number, place] = row, 1
    return ids, mask


def test_a_compressed_model_is_explained_uncompressed() -> None:
    inputs = make_inputs(BATCH)
    stock = relevance(tiny_model(), inputs, max_new_tokens=3)
    compressed = compress(tiny_model(), TokenCompressionConfig(retention_ratio=0.25))
    for one, other in zip(
        stock.samples, relevance(compressed, inputs, max_new_tokens=3).samples, strict=True
    ):
        assert torch.equal(one.answer_ids, other.answer_ids)
        torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize("limit", [1, 2**12, 2**30])
def test_the_memory_limit_changes_nothing_but_memory(limit: int) -> None:
    inputs = make_inputs(BATCH)
    whole = relevance(tiny_model(), inputs, answer_ids=ANSWERS, rule="gae")
    cut = relevance(tiny_model(), inputs, answer_ids=ANSWERS, rule="gae", memory_limit=limit)
    for one, other in zip(whole.samples, cut.samples, strict=True):
        torch.testing.assert_close(one.scores, other.scores)
