"""The scorer `mapper`, and the attention that it reads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import assert_same
from tiny_models import (
    FAMILIES,
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
from hf_token_compress.mapper import MapperConfig, MapperSet, RelevanceMapper
from hf_token_compress.scorers.attention import instruction_attention
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


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_statistics_equal_those_of_the_stock_models_attention(depth: int) -> None:
    """Mean and peak over the instruction rows, from the maps that eager attention returns."""
    model = tiny_model("eager").eval()
    inputs = make_inputs([ONE_IMAGE, TWO_TURNS])
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions[depth]
        prompt, layer = read_prompt(model, inputs, scoring_depth=depth)
        found = mapper_inputs(prompt, layer, "image")
    for row, item in enumerate(found):
        assert item is not None
        rows = maps[row][:, prompt.instruction_mask[row]][..., prompt.visual_mask[row]]
        assert_same(item.attention[0].exp(), rows.mean(1))
        assert_same(item.attention[1].exp(), (rows / rows.sum(-1, keepdim=True)).amax(1))
        assert [tuple(grid.shape) for grid in item.grids] == [
            grid.shape for visual in prompt.visuals[row] for grid in visual.grids
        ]


def test_the_mean_is_what_the_attention_scorer_takes() -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        prompt, layer = read_prompt(model, make_inputs(RAGGED[:2]))
        expected = instruction_attention(prompt, layer, per_head=True)
        for row, item in enumerate(mapper_inputs(prompt, layer, "image")):
            assert item is not None
            assert_same(item.attention[0].exp(), expected[row][:, prompt.visual_mask[row]])


def test_many_instruction_tokens_are_worked_on_in_chunks() -> None:
    """More rows than fit one chunk; a stock map is the reference."""
    model = tiny_model("eager").eval()
    inputs = make_inputs([(2, (4, 5), 150, "end", 2)])
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions[0]
        prompt, layer = read_prompt(model, inputs)
        (item,) = mapper_inputs(prompt, layer, "image")
    assert item is not None
    assert int(prompt.instruction_mask.sum()) == 150
    rows = maps[0][:, prompt.instruction_mask[0]][..., prompt.visual_mask[0]]
    assert_same(item.attention[0].exp(), rows.mean(1))
    assert_same(item.attention[1].exp(), (rows / rows.sum(-1, keepdim=True)).amax(1))


def test_rows_that_see_no_visual_token_give_finite_attention() -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        prompt, layer = read_prompt(model, make_inputs([ONE_IMAGE]), instruction="all_text")
        (item,) = mapper_inputs(prompt, layer, "image")
    assert item is not None
    assert item.attention.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("network", ["conv1d", "grid"])
def test_a_row_scores_in_a_batch_as_alone(network: str, family: str) -> None:
    model = tiny_model(family=family)
    model = scoring(model, mapper_of(model, network=network))
    inputs = make_inputs(RAGGED, family=family)
    together = scores_of(model, inputs)
    for row, prompt in enumerate(RAGGED):
        expected = together[row]
        assert expected is not None
        if len(expected) == 0:
            continue
        (alone,) = scores_of(model, make_inputs([prompt], family=family))
        assert_same(alone, expected)
        assert_same(expected.sum(), torch.tensor(1.0))


def test_the_best_predicted_tokens_are_kept_and_shares_allow_top_p() -> None:
    model = tiny_model().eval()
    mapper = mapper_of(model)
    model = scoring(model, mapper)
    inputs = make_inputs([ONE_IMAGE])
    (scores,) = scores_of(model, inputs)
    (sample,) = model.token_compression.last.samples
    best = scores.topk(sample.visual_tokens_after).indices
    assert set(best.tolist()) == set(sample.kept_visual.nonzero().flatten().tolist())
    compress(model, {"retention_ratio": 1.0, "min_visual_tokens": 0, "top_p": 0.5})
    model.token_compression.scorer = MapperScorer(mapper)
    (scores,) = scores_of(model, inputs)
    (sample,) = model.token_compression.last.samples
    assert scores[sample.kept_visual].sum() >= 0.5


def test_images_and_videos_have_mappers_of_their_own() -> None:
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
    with one_sentence(ValueError, "trained for images", "has videos"):
        scores_of(model, inputs)


def test_a_prompt_without_an_instruction_row_is_named() -> None:
    model = tiny_model()
    inputs = make_inputs([ONE_IMAGE, ONE_IMAGE])
    mask = inputs["mm_token_type_ids"] == 0
    mask[1] = False
    with one_sentence(ValueError, "Prompt 1 ", "instruction_mask"):
        prepare_inputs(scoring(model, mapper_of(model)), **inputs, instruction_mask=mask)


def test_the_mapper_is_no_part_of_the_model() -> None:
    stock = tiny_model()
    model = scoring(copy.deepcopy(stock), mapper_of(stock))
    assert list(model.state_dict()) == list(stock.state_dict())
    again = copy.deepcopy(model)
    inputs = make_inputs([ONE_IMAGE])
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


# Deeper layers


def test_attention_of_a_deeper_layer_scores() -> None:
    model = tiny_model("eager").eval()
    inputs = make_inputs([ONE_IMAGE])
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions[2]
        prompt, _ = read_prompt(model, inputs)
    options = {"scoring_depth": 2}
    compress(model, {"scorer": "attention", "scorer_options": options, "retention_ratio": 0.25})
    (scores,) = scores_of(model, inputs)
    rows = maps[0][:, prompt.instruction_mask[0]][..., prompt.visual_mask[0]]
    assert_same(scores, rows.mean((0, 1)))


def test_a_padded_row_scores_deeper_as_alone() -> None:
    model = tiny_model().eval()
    model = scoring(model, mapper_of(model, scoring_depth=2))
    together = scores_of(model, make_inputs([ONE_IMAGE, TWO_TURNS]))
    for prompt, expected in zip((ONE_IMAGE, TWO_TURNS), together, strict=True):
        assert_same(scores_of(model, make_inputs([prompt]))[0], expected)


def test_a_depth_that_the_model_does_not_have() -> None:
    model = compress(tiny_model(), {"scorer": "attention", "scorer_options": {"scoring_depth": 3}})
    with one_sentence(ValueError, "from 0 to 2", "3"):
        scores_of(model, make_inputs([ONE_IMAGE]))
