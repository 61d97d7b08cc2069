"""Every built-in scorer: what a prompt's scores may depend on. A new scorer is one more row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from mappers import NETWORKS
from matrix import one_at_a_time
from pairs import assert_same
from tiny_models import FAMILIES, Prompt, make_inputs, tiny_family, tiny_model
from torch import Tensor

from hf_token_compress import Scorer, available_scorers, compress, prepare_inputs
from hf_token_compress.compression.identity import identify
from hf_token_compress.mapper import MapperConfig, MapperSet, RelevanceMapper
from hf_token_compress.scorers import build_scorer
from hf_token_compress.scorers.mapper import MapperScorer

pytestmark = pytest.mark.core


def built(name: str, **options: Any) -> Callable[[Any], Scorer]:
    """Makes a scorer that needs no model."""
    return lambda model: build_scorer(name, options)


def with_mappers(network: str, **options: Any) -> Callable[[Any], Scorer]:
    """Makes a scorer with random mappers of a model, one for images and one for videos."""

    def make(model: Any) -> Scorer:
        torch.manual_seed(0)
        mappers = {}
        for modality in ("image", "video"):
            config = MapperConfig(identify(model), network, modality, NETWORKS[network], **options)
            mappers[modality] = RelevanceMapper(config).eval()
        return MapperScorer(MapperSet(mappers, "random"))

    return make


SCORERS: dict[str, Callable[[Any], Scorer]] = {
    "attention": built("attention"),
    "attention-deeper": built("attention", scoring_depth=2),
    "mapper-conv1d": with_mappers("conv1d"),
    "mapper-grid": with_mappers("grid"),
    "mapper-deeper": with_mappers("grid", scoring_depth=2),
    "random": built("random"),
    "relevance": built("relevance", max_new_tokens=3),
    "uniform": built("uniform"),
}

each_case = pytest.mark.parametrize(
    ("scorer", "family", "title"),
    one_at_a_time(
        SCORERS,
        [
            pytest.param(family, title, id=f"{family}-{title}")
            for family in FAMILIES
            for title in ("ragged", "ragged_videos")
            if title in tiny_family(family).prompts
        ],
    ),
)


def scores_of(
    scorer: str, family: str, prompts: Sequence[Prompt], *, padding_side: Any = "left"
) -> list[Tensor]:
    """Scores of the visual tokens of each prompt, float32 [N] each."""
    model = tiny_model(family=family)
    compress(model, {"retention_ratio": 0.25, "min_visual_tokens": 0})
    model.token_compression.scorer = SCORERS[scorer](model)
    prepare_inputs(model, **make_inputs(prompts, family=family, padding_side=padding_side))
    return [sample.scores for sample in model.token_compression.last.samples]


def test_every_built_in_scorer_has_a_row() -> None:
    assert {name.partition("-")[0] for name in SCORERS} == set(available_scorers())


@each_case
def test_scores_do_not_depend_on_the_batch(scorer: str, family: str, title: str) -> None:
    """Alone, in a ragged batch, and in a batch in another order."""
    prompts = tiny_family(family).prompts[title]
    scores = scores_of(scorer, family, prompts)
    reordered = scores_of(scorer, family, prompts[::-1])[::-1]
    for prompt, found, moved in zip(prompts, scores, reordered, strict=True):
        assert found.isfinite().all()
        assert_same(moved, found)
        if len(found):
            (alone,) = scores_of(scorer, family, [prompt])
            assert_same(alone, found)


@each_case
def test_scores_do_not_depend_on_the_padding_side(scorer: str, family: str, title: str) -> None:
    prompts = tiny_family(family).prompts[title]
    left = scores_of(scorer, family, prompts, padding_side="left")
    right = scores_of(scorer, family, prompts, padding_side="right")
    for found, expected in zip(right, left, strict=True):
        assert_same(found, expected)
