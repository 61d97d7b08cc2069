"""The trained tiny LLaVA-OneVision on pictures and clips that it has not seen."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from pairs import ModelPair, assert_same, masked_inputs

from hf_token_compress import TokenCompressionConfig, compress, load_tiny
from hf_token_compress.evaluation import answer_samples, clip_samples, scene_samples
from hf_token_compress.evaluation.answering import encode_samples

pytestmark = pytest.mark.core

SETTING = TokenCompressionConfig(retention_ratio=0.25)
PER_KIND = 15
PICTURES = scene_samples(["place", "colour", "where"], PER_KIND, seed=100)
CLIPS = clip_samples(["colour", "last"], PER_KIND, frames=4, seed=100)
each_modality = pytest.mark.parametrize("samples", [PICTURES, CLIPS], ids=["pictures", "clips"])


@pytest.fixture(scope="module")
def loaded() -> tuple[ModelPair, Any]:
    stock, processor = load_tiny("llava-onevision")
    return ModelPair(stock, compress(copy.deepcopy(stock), SETTING)), processor


@each_modality
def test_it_answers_questions_about_what_it_has_not_seen(
    samples: Any, loaded: tuple[ModelPair, Any]
) -> None:
    """The thresholds leave room for chance over this few questions."""
    (stock, _), processor = loaded
    answers = answer_samples(stock, processor, samples)
    right = Counter(
        sample.kind
        for sample, given in zip(samples, answers, strict=True)
        if given == sample.answer
    )
    for kind in {sample.kind for sample in samples}:
        assert right[kind] >= 10, right


@each_modality
def test_compressed_equals_dropped_tokens_hidden(
    samples: Any, loaded: tuple[ModelPair, Any]
) -> None:
    pair, processor = loaded
    inputs = encode_samples(processor, samples[:4])
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    actual = pair.compressed.generate(**inputs, **options)
    expected = pair.stock.generate(**masked_inputs(pair, inputs), **options)
    assert torch.equal(actual.sequences, expected.sequences)
    assert_same(torch.stack(actual.logits), torch.stack(expected.logits))
    for sample in pair.compressed.token_compression.last.samples:
        assert sample.visual_tokens_after == round(0.25 * sample.visual_tokens_before)


def test_visual_tokens_of_pictures_and_clips(loaded: tuple[ModelPair, Any]) -> None:
    """A picture of one tile comes whole and as a tile with newlines; a frame has 4 x 4 tokens."""
    pair, processor = loaded
    for sample, tokens, grids in (
        (PICTURES[0], 64 + 8 * 9, [(1, 8, 8), (1, 8, 8)]),
        (CLIPS[0], 4 * 16 + 1, [(4, 4, 4)]),
    ):
        pair.compressed(**encode_samples(processor, [sample]))
        (report,) = pair.compressed.token_compression.last.samples
        assert report.visual_tokens_before == tokens
        assert [grid.shape for grid in report.visuals[0].grids] == grids
