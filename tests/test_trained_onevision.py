"""The trained tiny LLaVA-OneVision on pictures and clips that it has not seen."""

from __future__ import annotations

from typing import Any

import pytest
from errors import one_sentence
from pairs import ModelPair
from trained_models import check_dropped_equals_hidden, load_trained, right_answers

from hf_token_compress.evaluation import clip_samples, scene_samples
from hf_token_compress.evaluation.answering import encode_samples
from hf_token_compress.tiny import own_mapper, resolve_mapper

pytestmark = pytest.mark.core

PER_KIND = 15
PICTURES = scene_samples(["place", "colour", "where"], PER_KIND, seed=100)
CLIPS = clip_samples(["colour", "last"], PER_KIND, frames=4, seed=100)
each_modality = pytest.mark.parametrize("samples", [PICTURES, CLIPS], ids=["pictures", "clips"])


@pytest.fixture(scope="module")
def loaded() -> tuple[ModelPair, Any]:
    return load_trained("llava-onevision")


@each_modality
def test_it_answers_questions_about_what_it_has_not_seen(
    samples: Any, loaded: tuple[ModelPair, Any]
) -> None:
    """The thresholds leave room for chance over this few questions."""
    (stock, _), processor = loaded
    right = right_answers(stock, processor, samples)
    assert all(count >= 10 for count in right.values()), right


@each_modality
def test_compressed_equals_dropped_tokens_hidden(
    samples: Any, loaded: tuple[ModelPair, Any]
) -> None:
    check_dropped_equals_hidden(*loaded, samples[:4])


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


def test_that_it_has_no_mapper_is_told_in_one_sentence() -> None:
    assert own_mapper("tiny-llava-onevision") is None
    with one_sentence(ValueError, "mapper", "tiny-llava-onevision"):
        resolve_mapper("tiny-llava-onevision")
