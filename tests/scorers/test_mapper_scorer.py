"""The scorer `mapper`, and the attention that it reads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import assert_same
from tiny_models import (
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    RAGGED,
    TWO_TURNS,
    make_inputs,
    tiny_model,
)

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression.identity import identify
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.mapper import MapperConfig, MapperInput, MapperSet, RelevanceMapper
from hf_token_compress.mapper.inputs import INPUTS
from hf_token_compress.scorers.attention import instruction_attention
from hf_token_compress.scorers.embedding_statistics import embedding_statistics
from hf_token_compress.scorers.mapper import MapperScorer
from hf_token_compress.scorers.mapper_inputs import mapper_inputs

pytestmark = pytest.mark.core


def mapper_of(model: Any, seed: int = 0, **options: Any) -> RelevanceMapper:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RelevanceMapper(MapperConfig(identify(model), **options)).eval()


def scoring(model: Any, mappers: RelevanceMapper | MapperSet) -> Any:
    compress(model, {"retention_ratio": 0.25, "min_visual_tokens": 0})
    model.token_compression.scorer = MapperScorer(mappers)
    return model


def scores_of(model: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor | None]:
    with torch.no_grad():
        prepare_inputs(model, **inputs)
    return [sample.scores for sample in model.token_compression.last.samples]


def assert_statistics(item: MapperInput, maps: torch.Tensor, prompt: Any, sample: int) -> None:
    """Compare with attention maps [B, heads, S, S] of the stock model."""
    attention = maps[sample][:, prompt.instruction_mask[sample]]  # [heads, Q, S]
    attention = attention[..., prompt.visual_mask[sample]]  # [heads, Q, N]
    assert_same(item.attention[0].exp(), attention.mean(1))
    share = attention / attention.sum(-1, keepdim=True)
    assert_same(item.attention[1].exp(), share.amax(1))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_statistics_equal_those_of_the_stock_models_attention(depth: int) -> None:
    """Mean and peak over the instruction tokens, from the maps that eager attention returns."""
    model = tiny_model("eager").eval()
    inputs = make_inputs([ONE_IMAGE, TWO_TURNS])
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions[depth]
        prompt, layer = read_prompt(model, inputs, scoring_depth=depth)
        found = mapper_inputs(prompt, layer, "image")
    for sample, item in enumerate(found):
        assert item is not None
        assert_statistics(item, maps, prompt, sample)
        assert [tuple(grid.shape) for grid in item.grids] == [
            grid.shape for visual in prompt.visuals[sample] for grid in visual.grids
        ]


@pytest.mark.parametrize("count", [1, 7, 4099])
def test_similarity_of_embeddings(count: int) -> None:
    """Beyond the chunks in which it is computed, and with one token of zeros."""
    visual, words = torch.randn(count, 8) * 3, torch.randn(5, 8)
    visual[count // 2] = 0.0 if count > 1 else 1.0
    text, embedding = (own[0] for own in embedding_statistics(visual[None], words[None]))
    cosines = torch.cosine_similarity(visual[:, None], words, dim=-1)  # [N, T]
    assert_same(text, torch.stack([cosines.mean(1), cosines.amax(1)]))
    centre = visual.mean(0)
    assert_same(embedding[1], torch.cosine_similarity(visual, centre[None], dim=-1))
    assert embedding.isfinite().all()
    present = visual.any(dim=1)
    assert_same(embedding[0, present], visual.norm(dim=1)[present].log())


def test_similarity_of_padded_embeddings() -> None:
    """As prompt by prompt."""
    visual, words = torch.randn(3, 7, 8), torch.randn(3, 5, 8)
    counts, asked = torch.tensor([7, 2, 4]), torch.tensor([3, 5, 1])
    missing = torch.arange(7) >= counts[:, None]
    found = embedding_statistics(visual, words, missing, torch.arange(5) >= asked[:, None])
    for number, (count, own) in enumerate(zip(counts, asked, strict=True)):
        alone = embedding_statistics(
            visual[number : number + 1, :count], words[number : number + 1, :own]
        )
        for together, expected in zip(found, alone, strict=True):
            assert_same(together[number, :, :count], expected[0])


def test_embeddings_are_those_that_the_stock_model_gets() -> None:
    """Of each prompt's own images and instruction; half precision costs a hundredth."""
    model = tiny_model().eval()
    inputs = make_inputs([TWO_TURNS, ONE_IMAGE])
    given: list[torch.Tensor] = []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, arguments: given.append(arguments[0])
    )
    with torch.no_grad():
        model(**inputs)
        hook.remove()
        prompt, layer = read_prompt(model, inputs)
        found = mapper_inputs(prompt, layer, "image")
        embedded = mapper_inputs(prompt, layer, "image", ("words",))
        rounded = mapper_inputs(*read_prompt(model.bfloat16(), inputs), "image")
    for sample, item in enumerate(found):
        assert item is not None
        embeds = given[0][sample]
        text, embedding = embedding_statistics(
            embeds[prompt.visual_mask[sample]][None], embeds[prompt.instruction_mask[sample]][None]
        )
        assert_same(item.text, text[0])
        assert_same(item.embedding, embedding[0])
        assert_same(embedded[sample].tokens, embeds[prompt.visual_mask[sample]])
        assert_same(embedded[sample].words, embeds[prompt.instruction_mask[sample]])
        for name in ("text", "embedding"):
            near = getattr(rounded[sample], name)
            torch.testing.assert_close(near, getattr(item, name), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("network", "seen"), [("grid", INPUTS), ("question", ("words",))])
def test_a_mapper_with_all_inputs_scores_in_a_batch_as_alone(
    network: str, seen: tuple[str, ...]
) -> None:
    model = tiny_model().eval()
    mapper = mapper_of(model, network=network, inputs=seen)
    model = scoring(model, mapper)
    together = scores_of(model, make_inputs([ONE_IMAGE, TWO_TURNS]))
    for prompt, found in zip((ONE_IMAGE, TWO_TURNS), together, strict=True):
        inputs = make_inputs([prompt])
        assert_same(found, scores_of(model, inputs)[0])
        with torch.no_grad():
            (item,) = mapper_inputs(*read_prompt(model, inputs), "image", seen)
        assert_same(found, mapper.relevance([item])[0])


def test_the_mean_equals_the_attention_scorers() -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        prompt, layer = read_prompt(model, make_inputs(RAGGED[:2]))
        expected = instruction_attention(layer, per_head=True)
        for sample, item in enumerate(mapper_inputs(prompt, layer, "image")):
            assert item is not None
            assert_same(item.attention[0].exp(), expected[sample][:, prompt.visual_mask[sample]])


def test_an_instruction_longer_than_one_chunk() -> None:
    model = tiny_model("eager").eval()
    inputs = make_inputs([(2, (4, 5), 150, "end", 2)])
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions[0]
        prompt, layer = read_prompt(model, inputs)
        (item,) = mapper_inputs(prompt, layer, "image")
    assert item is not None
    assert int(prompt.instruction_mask.sum()) == 150
    assert_statistics(item, maps, prompt, 0)


def test_instruction_before_the_image_gives_finite_attention() -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        prompt, layer = read_prompt(model, make_inputs([ONE_IMAGE]), instruction="all_text")
        (item,) = mapper_inputs(prompt, layer, "image")
    assert item is not None
    assert item.attention.isfinite().all()


def test_scores_sum_to_one_and_the_highest_are_kept() -> None:
    model = tiny_model().eval()
    mapper = mapper_of(model)
    model = scoring(model, mapper)
    inputs = make_inputs([ONE_IMAGE])
    (scores,) = scores_of(model, inputs)
    (sample,) = model.token_compression.last.samples
    best = scores.topk(sample.visual_tokens_after).indices
    assert set(best.tolist()) == set(sample.kept_visual.nonzero().flatten().tolist())
    assert_same(scores.sum(), torch.tensor(1.0))
    compress(model, {"retention_ratio": 1.0, "min_visual_tokens": 0, "top_p": 0.5})
    model.token_compression.scorer = MapperScorer(mapper)
    (scores,) = scores_of(model, inputs)
    (sample,) = model.token_compression.last.samples
    assert scores[sample.kept_visual].sum() >= 0.5


def test_temperature_evens_the_shares_out() -> None:
    model = tiny_model().eval()
    mapper = mapper_of(model)
    inputs = make_inputs([ONE_IMAGE])
    with torch.no_grad():
        prompt, layer = read_prompt(model, inputs)
    plain, warm = (
        MapperScorer(mapper, temperature=value).score(prompt, scoring_layer=layer)[
            prompt.visual_mask
        ]
        for value in (1.0, 3.0)
    )
    assert_same(warm, plain ** (1 / 3) / (plain ** (1 / 3)).sum())
    with one_sentence(ValueError, "temperature"):
        MapperScorer(mapper, temperature=0.0)


def test_each_modality_is_scored_by_its_own_mapper() -> None:
    model = tiny_model().eval()
    image, video = mapper_of(model, 1), mapper_of(model, 2, modality="video")
    model = scoring(model, MapperSet({"image": image, "video": video}, "both"))
    inputs = make_inputs([IMAGE_AND_VIDEO])
    (scores,) = scores_of(model, inputs)
    with torch.no_grad():
        prompt, layer = read_prompt(model, inputs)
    video_tokens, image_tokens = 32, 16
    for modality, mapper, part, count in (
        ("video", video, scores[:video_tokens], video_tokens),
        ("image", image, scores[video_tokens:], image_tokens),
    ):
        (item,) = mapper_inputs(prompt, layer, modality)
        share = count / (video_tokens + image_tokens)
        assert_same(part, mapper.relevance([item])[0] * share)
    model.token_compression.scorer = MapperScorer(image)
    with one_sentence(ValueError, "video"):
        scores_of(model, inputs)


def test_a_prompt_without_an_instruction_token_is_named() -> None:
    model = tiny_model()
    inputs = make_inputs([ONE_IMAGE, ONE_IMAGE])
    mask = inputs["mm_token_type_ids"] == 0
    mask[1] = False
    with one_sentence(ValueError, "Prompt 1 "):
        prepare_inputs(scoring(model, mapper_of(model)), **inputs, instruction_mask=mask)


def test_the_mapper_is_not_part_of_the_models_state() -> None:
    stock = tiny_model()
    model = scoring(copy.deepcopy(stock), mapper_of(stock))
    assert list(model.state_dict()) == list(stock.state_dict())
    again = copy.deepcopy(model)
    inputs = make_inputs([ONE_IMAGE])
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


# Deeper layers


def test_the_attention_scorer_at_a_deeper_layer() -> None:
    model = tiny_model("eager").eval()
    inputs = make_inputs([ONE_IMAGE])
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions[2]
        prompt, _ = read_prompt(model, inputs)
    options = {"scoring_depth": 2}
    compress(model, {"scorer": "attention", "scorer_options": options, "retention_ratio": 0.25})
    (scores,) = scores_of(model, inputs)
    attention = maps[0][:, prompt.instruction_mask[0]][..., prompt.visual_mask[0]]  # [heads, Q, N]
    assert_same(scores, attention.mean((0, 1)))


def test_a_depth_beyond_the_last_layer() -> None:
    model = tiny_model()
    stock = type(model)
    with one_sentence(ValueError, "scoring_depth", "0 to 2"):
        compress(model, {"scorer": "attention", "scorer_options": {"scoring_depth": 3}})
    assert type(model) is stock
    compress(model, {"scorer": "attention", "scorer_options": {"scoring_depth": 2}})
    scorer = model.token_compression.scorer
    with one_sentence(ValueError, "scoring_depth"):
        compress(model, {"scorer": "attention", "scorer_options": {"scoring_depth": 3}})
    assert model.token_compression.scorer is scorer
