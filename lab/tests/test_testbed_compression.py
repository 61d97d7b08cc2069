"""The equalities of token compression on a model of pretrained parts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from pairs import KEEP_ALL, QUARTER, ModelPair, answer, masked_inputs
from torch import Tensor

from hf_token_compress import TokenCompressionConfig, compress, prepare_inputs, uncompress
from lab.testbed import assemble
from lab.tests.testbed_models import assembled, need_parts, noise_image

pytestmark = pytest.mark.testbed

NEW = 5
FRAMES = [noise_image(seed) for seed in (5, 6)]
CHATS: dict[str, list[dict[str, Any]]] = {
    "image": [
        {"type": "image", "image": noise_image(0)},
        {"type": "text", "text": "Which colour is in the middle of the picture?"},
    ],
    "images": [
        {"type": "image", "image": noise_image(1)},
        {"type": "image", "image": noise_image(2, (120, 200))},
        {"type": "text", "text": "Which one is wider?"},
    ],
    "video": [
        {"type": "video", "video": FRAMES},
        {"type": "text", "text": "What is at the end?"},
    ],
    "text": [{"type": "text", "text": "What is the capital of France?"}],
}
RAGGED = ("image", "images", "video", "text")
SHORTER = ("video", "image", "text")
"""Prompts for tests of generation; images take the most time."""


@pytest.fixture(scope="module", autouse=True)
def parts() -> None:
    need_parts()


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    """Stock, and compressed to a quarter, float32."""
    stock, _ = assembled()
    return ModelPair(stock, compress(copy.deepcopy(stock), QUARTER))


def encode(*names: str) -> Any:
    """Model inputs of these chats, padded on the left."""
    _, processor = assembled()
    return processor.apply_chat_template(
        [[{"role": "user", "content": CHATS[name]}] for name in names],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={
            "padding": True,
            "padding_side": "left",
            "do_sample_frames": False,
        },
    )


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Equal up to float32 rounding in 30 layers; the standard deviation of logits is about 4."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-3)


def run(model: Any, inputs: Any, **options: Any) -> Any:
    """Generate exactly `NEW` tokens greedily, with their logits."""
    return model.generate(
        **inputs,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )


def logits_of(output: Any) -> Tensor:
    """[steps, B, vocabulary]."""
    return torch.stack(output.logits)


@pytest.mark.parametrize(
    ("dtype", "names"),
    [(torch.float32, SHORTER), (torch.bfloat16, RAGGED)],
    ids=["fp32", "bf16"],
)
def test_keep_all_equals_stock(dtype: torch.dtype, names: Sequence[str]) -> None:
    stock, _ = assembled(dtype)
    compressed = compress(copy.deepcopy(stock), KEEP_ALL)
    inputs = encode(*names)
    assert torch.equal(compressed(**inputs).logits, stock(**inputs).logits)


def test_keep_all_answers_as_stock() -> None:
    stock, _ = assembled(torch.bfloat16)
    compressed = compress(copy.deepcopy(stock), KEEP_ALL)
    inputs = encode(*SHORTER)
    expected = run(stock, inputs)
    actual = run(compressed, inputs)
    assert torch.equal(actual.sequences, expected.sequences)
    assert torch.equal(logits_of(actual), logits_of(expected))


def test_compressed_equals_stock_on_rewritten_inputs(pair: ModelPair) -> None:
    inputs = encode(*RAGGED)
    prepared = prepare_inputs(pair.compressed, **inputs)
    assert torch.equal(pair.compressed(**inputs).logits, pair.stock(**prepared).logits)
    inputs = encode(*SHORTER)
    prepared = prepare_inputs(pair.compressed, **inputs)
    expected = answer(run(pair.stock, prepared).sequences, prepared)
    assert torch.equal(answer(run(pair.compressed, inputs).sequences, inputs), expected)
    assert len(expected.unique()) > 3


def test_compressed_equals_stock_with_dropped_tokens_hidden(pair: ModelPair) -> None:
    inputs = encode(*SHORTER)
    actual = run(pair.compressed, inputs)
    expected = run(pair.stock, masked_inputs(pair, inputs))
    assert torch.equal(actual.sequences, expected.sequences)
    assert_near(logits_of(actual), logits_of(expected))


def test_dropping_changes_the_answer(pair: ModelPair) -> None:
    """Without this, a model that ignores its images would pass the other tests."""
    inputs = encode("image")
    whole, kept = pair.stock(**inputs).logits[:, -1], pair.compressed(**inputs).logits[:, -1]
    assert (whole - kept).abs().max() > 0.1


def test_cached_equals_recomputed(pair: ModelPair) -> None:
    inputs = encode(*SHORTER)
    cached = run(pair.compressed, inputs)
    recomputed = run(pair.compressed, inputs, use_cache=False)
    assert torch.equal(cached.sequences, recomputed.sequences)
    assert_near(logits_of(cached), logits_of(recomputed))


@pytest.mark.parametrize("scorer", ["attention", "random"])
def test_a_sample_in_a_batch_equals_the_sample_alone(scorer: str) -> None:
    stock, _ = assembled()
    setting = TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0, scorer=scorer)
    compressed = compress(copy.deepcopy(stock), setting)
    together = compressed(**encode(*RAGGED)).logits
    kept = [sample.kept_indices for sample in compressed.token_compression.last.samples]
    for index, name in enumerate(RAGGED):
        alone = compressed(**encode(name)).logits[0]
        assert len(alone) == len(kept[index])
        assert_near(together[index, -len(alone) :], alone)


@pytest.mark.parametrize(
    ("name", "counts", "grids"),
    [
        ("image", [256 + 16 * 17], [[(1, 16, 16), (1, 16, 16)]]),
        ("images", [257, 257], [[(1, 16, 16)], [(1, 16, 16)]]),
        ("video", [2 * 64 + 1], [[(2, 8, 8)]]),
    ],
)
def test_visual_tokens_lie_where_the_model_sees_them(
    name: str, counts: Sequence[int], grids: Any, pair: ModelPair
) -> None:
    pair.compressed(**encode(name))
    (sample,) = pair.compressed.token_compression.last.samples
    assert [len(visual.positions) for visual in sample.visuals] == counts
    assert [[grid.shape for grid in visual.grids] for visual in sample.visuals] == grids
    assert sample.visual_tokens_after == round(0.25 * sum(counts))


def test_a_setting_is_taken_at_loading_and_undone() -> None:
    stock, _ = assembled()
    model, _ = assemble(dtype="float32", token_compression=QUARTER)
    assert model.token_compression.config == QUARTER
    assert model.generation_config.eos_token_id == stock.generation_config.eos_token_id
    inputs = encode("video")
    assert type(uncompress(model)) is type(stock)
    assert torch.equal(model(**inputs).logits, stock(**inputs).logits)


def test_a_saved_model_is_loaded_by_transformers(pair: ModelPair, tmp_path: Any) -> None:
    """With its processor, as any checkpoint; the setting comes back with it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    pair.compressed.save_pretrained(tmp_path)
    assembled()[1].save_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32")
    inputs = encode("video")
    assert torch.equal(model(**inputs).logits, pair.compressed(**inputs).logits)
    processor = AutoProcessor.from_pretrained(tmp_path)
    text = "<|im_start|>user\n<image>\nin 2024<|im_end|>"
    own = assembled()[1](images=[noise_image(0)], text=text, return_tensors="pt")
    again = processor(images=[noise_image(0)], text=text, return_tensors="pt")
    assert torch.equal(again["input_ids"], own["input_ids"])
    # Auto classes choose the image processor that computes in torch.
    torch.testing.assert_close(again["pixel_values"], own["pixel_values"], rtol=0, atol=1e-5)
