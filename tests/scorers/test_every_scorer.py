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
    "attention_without_rope": built("attention_without_rope"),
    "cdpruner": built("cdpruner"),
    "dart": built("dart"),
    "divprune": built("divprune"),
    "gated_fusion": built("gated_fusion"),
    "hawk": built("hawk"),
    "idpruner": built("idpruner"),
    "mapper-conv1d": with_mappers("conv1d"),
    "mapper-grid": with_mappers("grid"),
    "mapper-deeper": with_mappers("grid", scoring_depth=2),
    "priortr": built("priortr"),
    "prumerge": built("prumerge"),
    "random": built("random"),
    "relevance": built("relevance", max_new_tokens=3),
    "scope": built("scope"),
    "scope-of-priortr": built(
        "scope", importance="priortr", importance_options={"scoring_depth": 1}
    ),
    "text_similarity": built("text_similarity"),
    "uniform": built("uniform"),
    "visionzip": built("visionzip"),
    "vispruner": built("vispruner"),
    "whitened_similarity": built("whitened_similarity"),
    "zoo_prune": built("zoo_prune"),
}

CHOOSE_SETS = (
    "cdpruner",
    "dart",
    "divprune",
    "idpruner",
    "prumerge",
    "scope",
    "vispruner",
    "zoo_prune",
)
"""Scorers that choose tokens themselves."""

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


def samples_of(
    scorer: str, family: str, prompts: Sequence[Prompt], *, padding_side: Any = "left"
) -> list[tuple[Tensor, Tensor]]:
    """Scores of the visual tokens of each prompt, float32 [N], and which are kept, bool [N]."""
    model = tiny_model(family=family)
    compress(model, {"retention_ratio": 0.25, "min_visual_tokens": 0})
    model.token_compression.scorer = SCORERS[scorer](model)
    prepare_inputs(model, **make_inputs(prompts, family=family, padding_side=padding_side))
    return [(own.scores, own.kept_visual) for own in model.token_compression.last.samples]


def test_every_built_in_scorer_has_a_row() -> None:
    assert {name.partition("-")[0] for name in SCORERS} == set(available_scorers())


@each_case
def test_a_prompt_keeps_the_same_tokens_in_every_batch(
    scorer: str, family: str, title: str
) -> None:
    """Alone, in a ragged batch, in another order, and with padding on the other side."""
    prompts = tiny_family(family).prompts[title]
    in_batch = samples_of(scorer, family, prompts)
    others = {
        "another order": samples_of(scorer, family, prompts[::-1])[::-1],
        "padding on the right": samples_of(scorer, family, prompts, padding_side="right"),
    }
    for number, (scores, kept) in enumerate(in_batch):
        assert scores.isfinite().all()
        assert int(kept.sum()) == round(0.25 * len(scores))
        found = {name: samples[number] for name, samples in others.items()}
        if len(scores):
            (found["alone"],) = samples_of(scorer, family, [prompts[number]])
        for name, (own_scores, own_kept) in found.items():
            assert_same(own_scores, scores)
            assert torch.equal(own_kept, kept), name


@pytest.mark.parametrize("name", CHOOSE_SETS)
def test_scorers_that_choose_sets_refuse_top_p(name: str) -> None:
    with pytest.raises(ValueError, match=f"Scorer '{name}' cannot be used with top_p"):
        compress(tiny_model(), {"scorer": name, "top_p": 0.5})
