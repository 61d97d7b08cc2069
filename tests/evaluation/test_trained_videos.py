"""The trained tiny models for images and clips, on such that they have not seen."""

from __future__ import annotations

from typing import Any

import pytest
from pairs import ModelPair
from trained_models import check_dropped_equals_hidden, load_trained, right_answers

from hf_token_compress.data.chat import encode_samples
from hf_token_compress.evaluation import clip_samples, scene_samples

pytestmark = pytest.mark.core

PER_KIND = 15
# Frames for which a clip shows each of its scenes: Qwen2-VL joins frames two by two.
HOLD = {"llava-onevision": 1, "qwen2-vl-video": 2}
# Visual tokens and grids of an image and of a clip. LLaVA-OneVision sees an image whole and as a
# tile with newlines, and 4 x 4 tokens of a frame; Qwen2-VL sees 8 x 8 of either.
TOKENS: dict[str, Any] = {
    "llava-onevision": [(64 + 8 * 9, [(1, 8, 8), (1, 8, 8)]), (4 * 16 + 1, [(4, 4, 4)])],
    "qwen2-vl-video": [(64, [(1, 8, 8)]), (4 * 64, [(4, 8, 8)])],
}
PICTURES = scene_samples(["place", "colour", "where"], PER_KIND, seed=100)
each_modality = pytest.mark.parametrize("modality", ["pictures", "clips"])


@pytest.fixture(scope="module", params=HOLD)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def loaded(name: str) -> tuple[ModelPair, Any]:
    return load_trained(name)


def samples_of(modality: str, name: str) -> Any:
    if modality == "pictures":
        return PICTURES
    kinds = ["colour", "last"]
    return clip_samples(kinds, PER_KIND, frames=4, frames_per_scene=HOLD[name], seed=100)


@each_modality
def test_it_answers_questions_about_what_it_has_not_seen(
    modality: str, name: str, loaded: tuple[ModelPair, Any]
) -> None:
    """The thresholds leave room for chance over this few questions."""
    (stock, _), processor = loaded
    samples = samples_of(modality, name)
    right = right_answers(stock, processor, samples)
    assert all(count >= 10 for count in right.values()), right


@each_modality
def test_compressed_equals_dropped_tokens_hidden(
    modality: str, name: str, loaded: tuple[ModelPair, Any]
) -> None:
    check_dropped_equals_hidden(*loaded, samples_of(modality, name)[:4])


def test_visual_tokens_of_pictures_and_clips(name: str, loaded: tuple[ModelPair, Any]) -> None:
    pair, processor = loaded
    for modality, (tokens, grids) in zip(("pictures", "clips"), TOKENS[name], strict=True):
        pair.compressed(**encode_samples(processor, samples_of(modality, name)[:1]))
        (report,) = pair.compressed.token_compression.last.samples
        assert report.visual_tokens_before == tokens
        assert [grid.shape for grid in report.visuals[0].grids] == grids
