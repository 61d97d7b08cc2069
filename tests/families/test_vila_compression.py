"""What is particular to compressing VILA1.5; other tests run over all families."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families.vila15 import SIDE, TOKENS
from matrix import each_attention
from packaging.version import Version
from pairs import QUARTER, ModelPair, assert_same, make_pair
from PIL import Image
from tiny_models import (
    IMAGE,
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    ONE_VIDEO,
    RAGGED,
    RAGGED_VIDEOS,
    TEXT_CONFIG,
    TURN_END,
    TWO_IMAGES,
    TWO_TURNS,
    TWO_VIDEOS,
    VIDEO,
    Prompt,
    make_inputs,
)
from torch import Tensor
from transformers import AutoProcessor
from vila_reference import CHECKPOINT, prompt_inputs, s2_checkpoint

from hf_token_compress import Scorer, compress, prepare_inputs
from hf_token_compress.evaluation.truth import tokens_in_boxes
from hf_token_compress.models.vila import VilaConfig, VilaForConditionalGeneration
from hf_token_compress.models.vila.family import image_layout
from hf_token_compress.viz import overlay

pytestmark = pytest.mark.core

FAMILY = "vila15"


@pytest.fixture
def pair() -> ModelPair:
    return make_pair(family=FAMILY)


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        (ONE_IMAGE, [("image", 1)]),
        (TWO_IMAGES, [("image", 1), ("image", 1)]),
        (ONE_VIDEO, [("video", 2)]),
        (IMAGE_AND_VIDEO, [("video", 2), ("image", 1)]),
        (TWO_VIDEOS, [("video", 2), ("video", 2)]),
    ],
    ids=["image", "images", "video", "image_and_video", "videos"],
)
def test_spans(prompt: Prompt, spans: Any, pair: ModelPair) -> None:
    """A video is one span; the line breaks between its frames belong to the text."""
    inputs = make_inputs([prompt], family=FAMILY)
    pair.compressed(**inputs)
    sample = pair.compressed.token_compression.last.samples[0]
    found = [(visual.modality, visual.grids[0].shape[0]) for visual in sample.visuals]
    assert found == spans
    for visual in sample.visuals:
        placeholder = IMAGE if visual.modality == "image" else VIDEO
        assert (inputs["input_ids"][0, visual.positions] == placeholder).all()
        assert len(visual.positions) == TOKENS * visual.grids[0].shape[0]
    kept = inputs["input_ids"][0, sample.kept_indices]
    text = inputs["input_ids"][0]
    text = text[(text != IMAGE) & (text != VIDEO)]
    assert torch.equal(kept[(kept != IMAGE) & (kept != VIDEO)], text)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_scores_equal_the_stock_attention_of_layer_0(padding_side: Any) -> None:
    """The map of eager attention, averaged over heads and over the queries of the last turn."""
    setting = dataclasses.replace(QUARTER, scorer="attention")
    stock, compressed = make_pair(setting, family=FAMILY, attention="eager")
    prompts = [ONE_IMAGE, TWO_TURNS, IMAGE_AND_VIDEO, TWO_VIDEOS]
    inputs = make_inputs(prompts, family=FAMILY, padding_side=padding_side)
    with torch.no_grad():
        maps = stock(**inputs, output_attentions=True).attentions[0].mean(1)  # [B, S, S]
        compressed(**inputs)
    for number, sample in enumerate(compressed.token_compression.last.samples):
        ids = inputs["input_ids"][number]
        visual = (ids == IMAGE) | (ids == VIDEO)
        last_visual = int(visual.nonzero()[-1])
        (end,) = [c for c in (ids == TURN_END).nonzero().flatten().tolist() if c > last_visual]
        expected = maps[number, last_visual + 1 : end].mean(0)[visual]
        torch.testing.assert_close(sample.scores, expected, rtol=1e-4, atol=1e-7)
        assert sample.scores.std() > 1e-4


@pytest.mark.parametrize("prompts", [RAGGED, RAGGED_VIDEOS], ids=["images", "videos"])
def test_given_features_are_compressed_like_pixels(prompts: Any, pair: ModelPair) -> None:
    inputs = make_inputs(prompts, family=FAMILY)
    expected = pair.compressed(**inputs).logits
    given = {}
    for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if name in inputs:
            encode = getattr(pair.stock, f"get_{kind}_features")
            given[kind] = encode(inputs.pop(name), return_dict=True)
    assert torch.equal(pair.compressed(**inputs, mm_encoder_outputs=given).logits, expected)


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23.0"), reason="needs Transformers 5.23"
)
@pytest.mark.parametrize("prompts", [RAGGED, RAGGED_VIDEOS], ids=["images", "videos"])
def test_prefill_in_chunks(prompts: Any, pair: ModelPair) -> None:
    inputs = make_inputs(prompts, family=FAMILY)
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    whole = pair.compressed.generate(**inputs, **options)
    chunked = pair.compressed.generate(**inputs, **options, prefill_chunk_size=7)
    assert torch.equal(chunked.sequences, whole.sequences)
    assert_same(torch.stack(chunked.logits), torch.stack(whole.logits))


def scaled_model() -> VilaForConditionalGeneration:
    """A random model with S2 at one and two times the tower's size."""
    torch.manual_seed(3)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 4,
        "vision_use_head": False,
    }
    config = VilaConfig(
        text_config={**TEXT_CONFIG, "model_type": "llama"},
        vision_config=vision,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        s2_scales=[SIDE, 2 * SIDE],
    )
    return VilaForConditionalGeneration(config).eval()


@pytest.mark.parametrize("name", ["pixel_values", "pixel_values_videos"])
def test_s2(name: str) -> None:
    stock, compressed = scaled_model(), compress(scaled_model(), QUARTER)
    inputs = make_inputs([ONE_IMAGE if name == "pixel_values" else ONE_VIDEO], family=FAMILY)
    pixels = inputs[name].flatten(0, -4)
    large = torch.nn.functional.interpolate(pixels, scale_factor=2.0)
    inputs[name] = large.view(*inputs[name].shape[:-2], 2 * SIDE, 2 * SIDE)
    expected = stock(**inputs).logits
    assert torch.equal(compressed(**inputs, token_compression=1.0).logits, expected)
    with torch.no_grad():
        shorter = stock(**prepare_inputs(compressed, **inputs)).logits
    assert torch.equal(compressed(**inputs).logits, shorter)
    assert shorter.shape[1] < expected.shape[1]


@pytest.mark.parametrize("prompt", ["single", "interleaved", "video", "text"])
@each_attention
@pytest.mark.parametrize("kind", ["plain", "s2"])
def test_keep_all_equals_stock_on_a_published_checkpoint(
    prompt: str, attention: str, kind: str, tmp_path: Any
) -> None:
    folder = CHECKPOINT if kind == "plain" else s2_checkpoint(tmp_path / "s2")
    load = VilaForConditionalGeneration.from_pretrained
    stock = load(folder, attn_implementation=attention)
    keep_all = {"retention_ratio": 1.0, "min_visual_tokens": 0}
    compressed = load(folder, attn_implementation=attention, token_compression=keep_all)
    inputs = prompt_inputs(AutoProcessor.from_pretrained(folder), prompt)
    assert torch.equal(compressed(**inputs).logits, stock(**inputs).logits)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(
        compressed.generate(**inputs, **options), stock.generate(**inputs, **options)
    )


class TopRight(Scorer):
    """Prefers the top right token of every frame."""

    def score(self, prompt: Any) -> Tensor:
        scores = torch.zeros(prompt.input_ids.shape)
        for sample, visuals in enumerate(prompt.visuals):
            for visual in visuals:
                for frame in visual.grids[0].index:
                    scores[sample, visual.positions[frame[0, -1]]] = 1.0
        return scores


@pytest.mark.parametrize(("prompt", "frame"), [(ONE_IMAGE, 0), (ONE_VIDEO, 0), (ONE_VIDEO, 1)])
def test_the_overlay_shows_kept_tokens_where_they_lie(
    prompt: Prompt, frame: int, pair: ModelPair
) -> None:
    """Tokens come column by column: read row by row, they would be mirrored."""
    pair.compressed.token_compression.scorer = TopRight()
    inputs = make_inputs([prompt], family=FAMILY)
    pair.compressed(**inputs, token_compression=1 / TOKENS)
    sample = pair.compressed.token_compression.last.samples[0]
    assert sample.visual_tokens_after == sample.visual_tokens_before // TOKENS
    # A patch is 16 pixels and a token 32; half of the last tokens lies in the padding.
    white = Image.new("RGB", (16 * 7, 16 * 7), "white")
    brightness = np.asarray(overlay(white, sample, frame=frame).convert("L"))
    assert brightness.shape == (112, 112)
    cells = brightness[8::32, 8::32]  # [rows, columns]
    assert np.argwhere(cells > 250).tolist() == [[0, 3]]


def test_the_truth_counts_tokens_that_reach_into_the_padding(pair: ModelPair) -> None:
    """On an odd grid the last tokens show the edge of the image and belong to its last cells.

    Seven patches make 4 x 4 tokens: the last begin at 6/7 of the image, and the third have their
    centre at 5/7.
    """
    (grid,) = image_layout(pair.stock.config, 1).grids
    right, lower = (21, 0, 28, 28), (0, 22, 28, 28)
    for box, expected in ((right, grid.index[0, :, 3]), (lower, grid.index[0, 3])):
        inside = tokens_in_boxes([box], (SIDE, SIDE), grid).view(4, 4)
        assert sorted(grid.index[0][inside].tolist()) == sorted(expected.tolist())
