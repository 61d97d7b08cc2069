"""Scores from the similarity of visual tokens and words, against cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from errors import one_sentence
from made_prompts import made_prompt, reading_of
from peft import LoraConfig, inject_adapter_in_model
from tiny_models import ONE_IMAGE, make_inputs, tiny_model
from torch import Tensor, nn

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression.word_embeddings import word_statistics
from hf_token_compress.prompt import MultimodalPrompt
from hf_token_compress.scorers import build_scorer
from hf_token_compress.scorers.attention import instruction_attention
from hf_token_compress.scorers.smoothing import smoothed
from hf_token_compress.scorers.visual_tokens import VisualBatch
from hf_token_compress.scorers.whitened_similarity import alignment_gate, whitened_similarity
from hf_token_compress.word_statistics import WordStatistics

pytestmark = pytest.mark.core


def scores_of(name: str, prompt: MultimodalPrompt, needed: Any = None, **options: Any) -> Tensor:
    """Scores of the visual tokens of a single prompt, [N]."""
    scores = build_scorer(name, options).score(prompt, **(needed or {}))
    return scores[prompt.visual_mask]


def test_text_similarity_is_the_mean_cosine_to_the_words() -> None:
    prompt = made_prompt([[3.0, 0.0], [0.0, -2.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 5.0]])
    expected = torch.tensor([0.5, -0.5, math.sqrt(0.5)])
    torch.testing.assert_close(scores_of("text_similarity", prompt), expected)


@pytest.mark.parametrize("name", ["text_similarity", "cdpruner"])
def test_a_prompt_without_instruction_is_refused(name: str) -> None:
    prompt = made_prompt([[1.0, 0.0]], [[1.0, 0.0]])
    prompt = replace(prompt, instruction_mask=~prompt.attention_mask)
    with pytest.raises(ValueError, match="Prompt 0 has visual tokens, but no instruction token"):
        scores_of(name, prompt)


# Whitened similarity


def vocabulary(size: int = 40, dimensions: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dimensions, dimensions, generator=generator)
    return torch.randn(size, dimensions, generator=generator) @ mixing + 1


def statistics_of(words: Tensor) -> WordStatistics:
    return WordStatistics(words.mean(0), words.T.cov(correction=0))


def matched_filters(visual: Tensor, asked: Tensor, words: Tensor, shrinkage: float) -> Tensor:
    """The formula, token by token and word by word, in double precision: [N, R]."""
    visual, asked, words = visual.double(), asked.double(), words.double()
    covariance = words.T.cov(correction=0)
    ridge = shrinkage * covariance.diagonal().mean() * torch.eye(len(covariance))
    inverse = torch.linalg.inv(covariance + ridge)
    result = torch.empty(len(visual), len(asked), dtype=torch.float64)
    for i, token in enumerate(visual - visual.mean(0)):
        for j, word in enumerate(asked - words.mean(0)):
            result[i, j] = token @ inverse @ word / torch.sqrt(word @ inverse @ word)
    return result


def test_whitened_similarity_is_the_best_matched_filter() -> None:
    words = vocabulary()
    visual, asked = vocabulary(6) * 2, words[3:6]
    prompt = made_prompt(visual, asked)
    needed = {"word_statistics": statistics_of(words)}
    for shrinkage in (0.1, 0.5):
        found = scores_of("whitened_similarity", prompt, needed, shrinkage=shrinkage, smooth=False)
        expected = matched_filters(visual, asked, words, shrinkage).amax(1)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("largest", "gate"), [(1.3, 0.0), (1.4, 0.0), (1.7, 0.5), (2.5, 1.0)])
def test_the_gate_opens_for_a_word_that_stands_out(largest: float, gate: float) -> None:
    """Responses of ±d have the standard deviation d: the median is 1."""
    similarity = torch.tensor([[[1.0, 0.5, largest], [-1.0, -0.5, -largest]]])
    prompt = made_prompt(torch.ones(2, 2), torch.ones(3, 2))
    found = alignment_gate(similarity, VisualBatch.of(prompt, [0], torch.device("cpu")))
    torch.testing.assert_close(found, torch.tensor([[gate]]), atol=1e-5, rtol=0)


def test_smoothing_averages_with_the_cells_around() -> None:
    """Two frames of 2 x 3 cells, and a token on no grid."""
    prompt = made_prompt(torch.ones(13, 2), torch.ones(1, 2), (2, 2, 3))
    values = torch.tensor([0.0, 6, 0, 0, 0, 12, *[1.0] * 6, 7])
    scores = torch.zeros(prompt.visual_mask.shape)
    scores[prompt.visual_mask] = values
    # Means around the cells: 6 / 4, 18 / 6, 18 / 4 in both rows.
    around = torch.tensor([1.5, 3, 4.5, 1.5, 3, 4.5, *[1.0] * 6, 7])
    found = smoothed(scores, prompt)[prompt.visual_mask]
    torch.testing.assert_close(found, (values + around) / 2)


# Word statistics


@pytest.mark.parametrize("family", ["qwen2_vl", "gemma3"])
def test_word_statistics_are_of_what_the_decoder_gets(family: str) -> None:
    """Gemma 3 scales its word embeddings."""
    model = tiny_model(family=family)
    found = word_statistics(model)
    embeddings = model.get_input_embeddings()
    words = embeddings(torch.arange(embeddings.num_embeddings)).detach()
    torch.testing.assert_close(found.mean, words.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.covariance, words.T.cov(correction=0), rtol=1e-3, atol=1e-5)


def test_word_statistics_are_kept_until_the_embeddings_change() -> None:
    model = tiny_model()
    first = word_statistics(model)
    assert word_statistics(model) is first
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    torch.testing.assert_close(word_statistics(model).mean, 2 * first.mean)
    resized = nn.Embedding(10, 48)
    model.set_input_embeddings(resized)
    torch.testing.assert_close(word_statistics(model).mean, resized.weight.detach().mean(0))


def test_word_statistics_are_of_the_adapter_in_use() -> None:
    model = tiny_model()
    plain = word_statistics(model)
    config = LoraConfig(target_modules=["embed_tokens"], r=2, init_lora_weights=False)
    inject_adapter_in_model(config, model)
    assert not torch.allclose(word_statistics(model).mean, plain.mean)
    model.get_input_embeddings().enable_adapters(False)
    assert torch.equal(word_statistics(model).mean, plain.mean)


def test_word_embeddings_without_a_covariance_are_refused() -> None:
    words = statistics_of(torch.ones(40, 4))
    with one_sentence(ValueError, "covariance of the word embeddings", "word_statistics"):
        words.precision_times(torch.ones(1, 4), 0.1)


# Gated fusion


def standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std(correction=0)


@pytest.mark.parametrize("text_weight", [0.0, 2.0])
def test_gated_fusion_follows_its_formula(text_weight: float) -> None:
    model, inputs = tiny_model(), make_inputs([ONE_IMAGE])
    options = {"text_weight": text_weight}
    config = {"scorer": "gated_fusion", "scorer_options": options, "min_visual_tokens": 0}
    with torch.no_grad():
        reading = reading_of(model, inputs)
        prompt = reading.prompt
        layers = [reading.scoring_layer(0, rotary=rotary) for rotary in (True, False)]
        maps = [instruction_attention(layer)[prompt.visual_mask] for layer in layers]
        words = word_statistics(model)
        batch = VisualBatch.of(prompt, [0], torch.device("cpu"))
        similarity = whitened_similarity(prompt.inputs_embeds[0], batch, words, 0.1)
    attention = standardised(maps[0].log()) + standardised(maps[1].log())
    text = alignment_gate(similarity, batch)[0] * standardised(similarity[0].amax(1))
    expected = torch.zeros(prompt.visual_mask.shape)
    expected[prompt.visual_mask] = standardised(attention) + text_weight * text
    expected = smoothed(expected, prompt)[prompt.visual_mask]
    compress(model, config)
    prepare_inputs(model, **inputs)
    found = model.token_compression.last.samples[0].scores
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
