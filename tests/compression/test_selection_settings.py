"""Structure first, diverse selection and scorers that choose themselves, in compressed models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import make_pair
from tiny_models import ONE_IMAGE, TEXT_ONLY, TWO_IMAGES, make_inputs, tiny_model
from torch import Tensor

from hf_token_compress import TokenCompressionConfig, compress
from hf_token_compress.prompt import MultimodalPrompt
from hf_token_compress.scorers import Scorer
from hf_token_compress.selection import Candidates
from hf_token_compress.selection.structure import structure_tokens

QUARTER = TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0)
DIVERSE = dataclasses.replace(QUARTER, selection="diverse")


def samples_of(model: Any, prompts: list[Any], family: str) -> Any:
    model(**make_inputs(prompts, family=family))
    return model.token_compression.last.samples


@pytest.mark.parametrize(
    ("family", "scorer"), [("llava_onevision", "random"), ("hunyuan_vl", "attention")]
)
def test_newlines_are_kept_first_up_to_their_share(family: str, scorer: str) -> None:
    kept = {}
    for share in (0.25, 1.0):
        config = dataclasses.replace(QUARTER, scorer=scorer, structure_share=share)
        _, model = make_pair(config, family=family)
        (sample,) = samples_of(model, [ONE_IMAGE], family)
        structure = structure_tokens(sample.visuals)
        budget = round(0.25 * len(sample.kept_visual))
        assert sample.visual_tokens_after == budget
        kept[share] = int(sample.kept_visual[structure].sum())
        assert kept[share] >= min(len(structure), int(share * budget))
    # All but the one other token that the image keeps.
    assert kept[1.0] == min(len(structure), budget - 1) > kept[0.25] or kept[0.25] == len(structure)


@pytest.mark.parametrize("family", ["idefics2", "qwen2_vl"])
def test_a_family_without_structure_keeps_what_it_kept(family: str) -> None:
    """Idefics2's tokens lie on no grid, but they separate nothing."""
    kept = []
    for share in (0.0, 1.0):
        _, model = make_pair(dataclasses.replace(QUARTER, structure_share=share), family=family)
        kept.append(samples_of(model, [TWO_IMAGES], family)[0].kept_visual)
    assert torch.equal(*kept)


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_vl"])
def test_diverse_chooses_for_a_sample_in_a_batch_as_for_one_alone(family: str) -> None:
    stock, model = make_pair(DIVERSE, family=family)
    prompts = [TWO_IMAGES, TEXT_ONLY, ONE_IMAGE]
    batch = samples_of(model, prompts, family)
    for prompt, own in zip(prompts, batch, strict=True):
        if prompt is TEXT_ONLY:
            continue
        (alone,) = samples_of(model, [prompt], family)
        assert torch.equal(own.kept_visual, alone.kept_visual)
        assert own.visual_tokens_after == round(0.25 * own.visual_tokens_before)
    ranking = dataclasses.replace(DIVERSE, selection="top_k")
    ranked = samples_of(compress(stock, ranking), prompts, family)
    assert not torch.equal(batch[0].kept_visual, ranked[0].kept_visual)


def test_diverse_keeps_all_where_all_is_kept() -> None:
    config = dataclasses.replace(DIVERSE, retention_ratio=1.0)
    stock, model = make_pair(config, family="llava_onevision")
    inputs = make_inputs([ONE_IMAGE, TWO_IMAGES], family="llava_onevision")
    assert torch.equal(model(**inputs).logits, stock(**inputs).logits)


class LastTokens(Scorer):
    """Chooses the last tokens, however many they are."""

    def score(self, prompt: MultimodalPrompt) -> Tensor:
        return torch.zeros(prompt.visual_mask.shape)

    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Tensor:
        assert candidates.embeddings.shape == (
            int(prompt.visual_mask[sample].sum()),
            prompt.inputs_embeds.shape[-1],
        )
        return (~candidates.kept).nonzero().flatten()[-candidates.count :]


def test_a_scorer_may_choose_tokens_itself() -> None:
    model = compress(tiny_model(), QUARTER)
    model.token_compression.scorer = LastTokens()
    (sample,) = samples_of(model, [ONE_IMAGE], "qwen2_vl")
    kept = int(sample.kept_visual.sum())
    assert kept == round(0.25 * len(sample.kept_visual))
    assert sample.kept_visual[-kept:].all()


class Free(Scorer):
    """Chooses what `rule` makes of the first free tokens."""

    def __init__(self, rule: Callable[[Tensor], Any]) -> None:
        self.rule = rule

    def score(self, prompt: MultimodalPrompt) -> Tensor:
        return torch.zeros(prompt.visual_mask.shape)

    def select(self, prompt: MultimodalPrompt, sample: int, candidates: Candidates) -> Any:
        free = (~candidates.kept).nonzero().flatten()
        return self.rule(free[: candidates.count])


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (ValueError, lambda free: free[1:]),
        (ValueError, lambda free: free[:1].expand(len(free))),
        (ValueError, lambda free: free - 1_000),
        (ValueError, lambda free: free + 1_000),
        (TypeError, lambda free: free.bool()),
        (TypeError, lambda free: free.tolist()),
    ],
    ids=["too few", "twice", "below", "above", "a mask", "a list"],
)
def test_a_scorer_that_does_not_choose_what_is_asked_for(error: type[Exception], rule: Any) -> None:
    model = compress(tiny_model(), QUARTER)
    model.token_compression.scorer = Free(rule)
    with one_sentence(error, "Free"):
        model(**make_inputs([ONE_IMAGE]))


def test_a_scorer_does_not_choose_for_a_prompt_that_keeps_all() -> None:
    chosen: list[Tensor] = []

    def note(free: Tensor) -> Tensor:
        chosen.append(free)
        return free

    model = compress(tiny_model(), QUARTER)
    model.token_compression.scorer = Free(note)
    model(**make_inputs([ONE_IMAGE, ONE_IMAGE]), token_compression=[1.0, 0.25])
    whole, quarter = model.token_compression.last.samples
    assert whole.kept_visual.all()
    assert [len(own) for own in chosen] == [quarter.visual_tokens_after]


@pytest.mark.parametrize("change", [{"top_p": 0.5}, {"selection": "diverse"}])
def test_settings_that_a_scorer_does_not_allow(change: dict[str, Any]) -> None:
    with one_sentence(ValueError, "uniform", next(iter(change)), "order"):
        compress(tiny_model(), {"scorer": "uniform", **change})
    model = compress(tiny_model(), QUARTER)
    model.token_compression.scorer = LastTokens()
    with one_sentence(ValueError, "LastTokens", next(iter(change)), "itself"):
        model.token_compression.update(**change)
    # The setting is as before.
    assert samples_of(model, [ONE_IMAGE], "qwen2_vl")[0].kept_visual[-1]
    with one_sentence(ValueError, "LastTokens", next(iter(change))):
        model(**make_inputs([ONE_IMAGE]), token_compression=change)
