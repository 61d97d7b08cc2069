"""The trained tiny VILA on images and clips that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pairs import ModelPair
from PIL import Image
from trained_models import check_dropped_equals_hidden, load_trained, right_answers
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

import hf_token_compress.tiny
from hf_token_compress.cli import app
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.evaluation import clip_samples, measure_retention, scene_samples
from hf_token_compress.models.vila import VilaForConditionalGeneration, VilaProcessor
from hf_token_compress.tiny import own_mapper

pytestmark = pytest.mark.core

FOLDER = Path(hf_token_compress.tiny.__file__).parent / "vila"
PICTURES = scene_samples(["place", "colour", "letter", "where"], 15, seed=100)
CLIPS = clip_samples(["during", "first", "last", "colour", "letter"], 12, frames=4, seed=100)
each_modality = pytest.mark.parametrize("samples", [PICTURES, CLIPS], ids=["pictures", "clips"])


@pytest.fixture(scope="module")
def loaded() -> tuple[ModelPair, Any]:
    return load_trained("vila")


@each_modality
def test_it_answers_questions_about_what_it_has_not_seen(
    samples: Any, loaded: tuple[ModelPair, Any]
) -> None:
    """Of 60 questions; three standard errors below 85 % are 71 %."""
    (stock, _), processor = loaded
    right = right_answers(stock, processor, samples)
    assert right.total() >= 0.71 * len(samples), right


@each_modality
def test_compressed_equals_dropped_tokens_hidden(
    samples: Any, loaded: tuple[ModelPair, Any]
) -> None:
    check_dropped_equals_hidden(*loaded, samples[:4])


def test_it_has_what_the_published_models_have(loaded: tuple[ModelPair, Any]) -> None:
    """An odd grid of patches, which the projector pads, and tokens from column to column."""
    (stock, _), processor = loaded
    assert type(stock) is VilaForConditionalGeneration
    assert type(processor) is VilaProcessor
    config = stock.config
    assert config.feature_side % 2 == 1
    assert (config.token_order, config.text_config.model_type) == ("column_major", "llama")
    assert config.vision_config.model_type == "siglip_vision_model"
    assert config.image_seq_length == processor.image_seq_length == 64


def test_visual_tokens_of_pictures_and_clips(loaded: tuple[ModelPair, Any]) -> None:
    """A frame is an image; the last tokens reach over the edge into the padding."""
    pair, processor = loaded
    for sample, frames in ((PICTURES[0], 1), (CLIPS[0], 4)):
        pair.compressed(**encode_samples(processor, [sample]))
        (report,) = pair.compressed.token_compression.last.samples
        assert report.visual_tokens_before == 64 * frames
        (grid,) = report.visuals[0].grids
        assert grid.shape == (frames, 8, 8)
        assert grid.area == pytest.approx((0, 0, 16 / 15, 16 / 15))


@each_modality
def test_the_tokens_of_the_right_cells_are_enough(
    samples: Any, loaded: tuple[ModelPair, Any]
) -> None:
    """Rows for columns, or a frame for another, would leave next to nothing of the answers."""
    (stock, _), processor = loaded
    full, truth, chance = measure_retention(
        stock,
        processor,
        samples[::2],
        scorers=["truth", "random"],
        retention_ratios=[0.1],
        max_new_tokens=8,
    )
    right = [sum(item.correct.values()) for item in (full, truth, chance)]
    assert right[1] >= right[0] - 4
    assert right[1] >= right[2] + 8


def test_the_auto_classes_load_its_folder(loaded: tuple[ModelPair, Any]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(FOLDER)
    processor = AutoProcessor.from_pretrained(FOLDER)
    assert sum(parameter.numel() for parameter in model.parameters()) < 4e6
    assert right_answers(model, processor, PICTURES[:15]) == right_answers(
        loaded[0].stock, loaded[1], PICTURES[:15]
    )


def test_its_mappers_come_with_it() -> None:
    assert own_mapper("tiny-vila") == "tiny-vila"
    for weights in (FOLDER / "mappers").rglob("*.safetensors"):
        assert weights.stat().st_size < 2**20


def test_commands_take_it_by_name(tmp_path: Path) -> None:
    sample = PICTURES[0]
    sample.image.save(tmp_path / "board.png")
    arguments = ["run", "--model", "tiny-vila", "--image", str(tmp_path / "board.png")]
    overlay = tmp_path / "kept.png"
    outcome = CliRunner().invoke(
        app, [*arguments, "--prompt", sample.question, "--overlay", str(overlay)]
    )
    assert outcome.exit_code == 0, outcome.stderr
    with Image.open(overlay) as picture:
        assert min(picture.size) > 100
