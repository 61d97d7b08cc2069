"""VILA1.5 computes what the original code computed, on recorded weights, images and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL
import pytest
import torch
from matrix import each_attention
from packaging.version import Version
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor
from vila_reference import (
    BATCH,
    CHECKPOINT,
    VOCABULARY,
    described,
    every_eighth,
    expanded_ids,
    largest_difference,
    pixels_of,
    prompt_inputs,
    recorded,
    s2_checkpoint,
)

import hf_token_compress  # noqa: F401 - registers VILA1.5 with the Auto classes

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(
        Version(PIL.__version__) < Version("13"),
        reason="Pillow 13 made the recorded pixels; older ones resize differently",
    ),
]

TOLERANCE = 1e-5
PROMPTS = ("single", "interleaved", "video", "text")
each_prompt = pytest.mark.parametrize("prompt", PROMPTS)


@pytest.fixture(scope="module", params=["published", "converted"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as the original code saved it, and as this library saves it."""
    if request.param == "published":
        return CHECKPOINT
    converted = tmp_path_factory.mktemp("converted")
    AutoModelForImageTextToText.from_pretrained(CHECKPOINT).save_pretrained(converted)
    AutoProcessor.from_pretrained(CHECKPOINT).save_pretrained(converted)
    return converted


@pytest.fixture
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder)


def load(folder: Path, attention: str, dtype: torch.dtype = torch.float64) -> Any:
    """In float64, like the recorded numbers; float32 exceeds the tolerance on some CPUs."""
    return AutoModelForImageTextToText.from_pretrained(
        folder, attn_implementation=attention, dtype=dtype
    )


@each_prompt
def test_input_ids_and_pixel_values(prompt: str, processor: Any) -> None:
    inputs = prompt_inputs(processor, prompt)
    assert inputs["input_ids"][0].tolist() == expanded_ids(prompt, processor.image_token_id)
    assert inputs["attention_mask"].all()
    indices = described()["image_indices"][prompt]
    if not indices:
        assert "pixel_values" not in inputs
        return
    pixels = pixels_of(recorded()["pixel_values"][indices])
    assert largest_difference(inputs["pixel_values"], pixels) < 1e-6


@each_attention
def test_features_of_images(attention: str, folder: Path, processor: Any) -> None:
    model = load(folder, attention)
    pixels = prompt_inputs(processor, "video")["pixel_values"]
    with torch.no_grad():
        tower = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
        tokens = torch.stack(list(model.get_image_features(pixels).pooler_output))
    assert largest_difference(tower, recorded()["vision_select"]) < TOLERANCE
    assert largest_difference(tokens, recorded()["projected"]) < TOLERANCE


@torch.no_grad()
def test_token_order_of_the_successors() -> None:
    model = AutoModel.from_pretrained(CHECKPOINT, token_order="row_major")
    assert model.config.token_order == "row_major"
    pixels = pixels_of(recorded()["pixel_values"])
    tokens = torch.stack(list(model.get_image_features(pixels).pooler_output))
    assert largest_difference(tokens, recorded()["projected_nvila_order"]) < 1e-4
    assert largest_difference(tokens, recorded()["projected"]) > 0.1


@torch.no_grad()
@each_prompt
@each_attention
def test_logits(prompt: str, attention: str, folder: Path, processor: Any) -> None:
    model = load(folder, attention)
    inputs = prompt_inputs(processor, prompt)
    logits = every_eighth(model(**inputs).logits)
    expected = recorded()[f"{prompt}.logits"]
    assert largest_difference(logits[..., :VOCABULARY], expected) < TOLERANCE
    if prompt != "text":
        embeddings = model.model(**inputs, output_hidden_states=True).hidden_states[0]
        expected = recorded()[f"{prompt}.inputs_embeds"]
        assert largest_difference(every_eighth(embeddings), expected) < TOLERANCE


@torch.no_grad()
@each_attention
def test_right_padded_batch_and_loss(attention: str, folder: Path, processor: Any) -> None:
    model = load(folder, attention)
    inputs = prompt_inputs(processor, *BATCH, padding=True, padding_side="right")
    mask = recorded()["batch.expanded_attention_mask"]
    assert torch.equal(inputs["attention_mask"].bool(), mask.bool())
    output = model(**inputs, labels=recorded()["batch.expanded_labels"])
    shown = every_eighth(mask.bool())
    logits = every_eighth(output.logits)[..., :VOCABULARY]
    expected = recorded()["batch.logits"]
    assert largest_difference(logits[shown], expected[shown]) < TOLERANCE
    assert output.loss.item() == pytest.approx(6.74717, abs=1e-5)
    assert output.loss.item() == pytest.approx(recorded()["batch.loss"].item(), abs=2e-6)


@each_attention
@pytest.mark.parametrize("prompt", ["single", "video"])
def test_greedy_answers(prompt: str, attention: str, folder: Path, processor: Any) -> None:
    model = load(folder, attention, torch.float32)
    inputs = prompt_inputs(processor, prompt)
    sequences = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answer = sequences[0, inputs["input_ids"].shape[1] :]
    assert answer.tolist() == described()[f"{prompt}.greedy"][1:]


def test_a_left_padded_batch_answers_like_each_prompt_alone(processor: Any, folder: Path) -> None:
    model = load(folder, "sdpa", torch.float32)
    inputs = prompt_inputs(processor, "single", "video", padding=True)
    sequences = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answers = sequences[:, inputs["input_ids"].shape[1] :].tolist()
    assert answers == [described()[f"{prompt}.greedy"][1:] for prompt in ("single", "video")]


@torch.no_grad()
@each_attention
def test_s2(attention: str, tmp_path: Path) -> None:
    """Images at two scales: pixel values, features and projector output."""
    folder = s2_checkpoint(tmp_path / "vila-s2")
    model, processor = load(folder, attention), AutoProcessor.from_pretrained(folder)
    expected = recorded("reference_s2")
    pixels = prompt_inputs(processor, "video")["pixel_values"]
    assert largest_difference(pixels, pixels_of(expected["pixel_values"])) < 1e-6
    joined = []
    hook = model.model.multi_modal_projector.register_forward_pre_hook(
        lambda _, arguments: joined.append(arguments[0])
    )
    tokens = torch.stack(list(model.get_image_features(pixels).pooler_output))
    hook.remove()
    assert largest_difference(joined[0], expected["vision_select"]) < TOLERANCE
    assert largest_difference(tokens, expected["projected"]) < TOLERANCE
    ids = prompt_inputs(processor, "single")["input_ids"][0].tolist()
    assert ids == expanded_ids("single", processor.image_token_id)
