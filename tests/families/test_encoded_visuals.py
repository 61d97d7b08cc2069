"""Features of the vision part, and what else has one entry per visual token."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from errors import one_sentence
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_token_compress import EncodedVisuals
from hf_token_compress.models.visuals import CompressedVisionOutput, RaggedFeatures

pytestmark = pytest.mark.core

COUNTS = [4, 6]
MASKS = [torch.arange(4) % 2 == 0, torch.arange(6) > 3]
KEPT = torch.cat(MASKS)


@dataclass
class FurtherOutput(BaseModelOutputWithPooling):
    further: Any = None


def tokens(width: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(sum(COUNTS), width, generator=torch.Generator().manual_seed(seed))


def cut(output: Any) -> Any:
    return EncodedVisuals.from_output(output).cut(MASKS).output()


def joined(value: Any) -> Tensor:
    return torch.cat(list(value)) if isinstance(value, (list, tuple)) else value


def test_a_list_stays_a_list() -> None:
    features = tokens()
    output = cut(BaseModelOutputWithPooling(pooler_output=features.split(COUNTS)))
    assert type(output.pooler_output) is list
    assert torch.equal(torch.cat(output.pooler_output), features[KEPT])


def test_a_tensor_becomes_a_list_that_answers_as_one() -> None:
    features = torch.randn(2, 4, 3)
    visuals = EncodedVisuals.from_output(BaseModelOutputWithPooling(pooler_output=features))
    output: Any = visuals.cut([MASKS[0], torch.arange(4) > 2]).output()
    kept = features.flatten(0, 1)[torch.cat([MASKS[0], torch.arange(4) > 2])]
    found = output.pooler_output
    assert [len(own) for own in found] == [2, 1]
    assert torch.equal(torch.cat(found), kept)
    for way in (
        found.to(torch.float32),
        found.reshape(-1, 3),
        found.view(-1, 3),
        found.flatten(0, 1),
    ):
        assert torch.equal(way.flatten(0, -2), kept)
    assert found.shape[0] * found.shape[1] == len(kept)
    # `generate` replaces the features by a plain list when it repeats them for its beams.
    output.pooler_output = list(found) * 2
    assert isinstance(output.pooler_output, RaggedFeatures)
    assert output["pooler_output"].numel() == 2 * kept.numel()


@pytest.mark.parametrize("shape", ["flat", "split", "layers", "numbered layers"])
def test_further_fields_are_cut_wherever_there_is_one_entry_per_token(shape: str) -> None:
    features, first, second = tokens(), tokens(5, 1), tokens(5, 2)
    further = {
        "flat": first,
        "split": first.split(COUNTS),
        "layers": [first.split(COUNTS), second.split(COUNTS)],
        "numbered layers": [(3, first.split(COUNTS)), (7, second.split(COUNTS))],
    }[shape]
    output = cut(FurtherOutput(pooler_output=features.split(COUNTS), further=further))
    assert isinstance(output, FurtherOutput)
    found = output.further
    if shape in ("flat", "split"):
        assert torch.equal(joined(found), first[KEPT])
        return
    if shape == "numbered layers":
        assert [number for number, _ in found] == [3, 7]
        found = [layer for _, layer in found]
    assert torch.equal(joined(found[0]), first[KEPT])
    assert torch.equal(joined(found[1]), second[KEPT])


def test_other_fields_stay_whole_and_those_of_the_tower_stay_behind() -> None:
    further = {"ids": 5}
    indicators = torch.randn(5, 3)
    output = FurtherOutput(
        pooler_output=tokens().split(COUNTS),
        last_hidden_state=torch.randn(2, 40, 8),
        further=[indicators, further, 1.5],
    )
    found = cut(output)
    assert found.last_hidden_state is None
    assert found.further[0] is indicators
    assert found.further[1:] == [further, 1.5]


def test_chosen_images_take_their_further_fields_along() -> None:
    features, first = tokens(), tokens(5, 1)
    output = FurtherOutput(pooler_output=features.split(COUNTS), further=[first])
    found = EncodedVisuals.from_output(output).take([1, 0, 1])
    assert torch.equal(torch.cat(found.features), _chosen(features))
    assert torch.equal(found.others["further"][0], _chosen(first))


def _chosen(whole: Tensor) -> Tensor:
    return torch.cat([whole[4:], whole[:4], whole[4:]])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("one_tensor", [False, True])
def test_outputs_can_be_copied(copied: Any, one_tensor: bool) -> None:
    features: Any = torch.randn(2, 4, 3)
    visuals = EncodedVisuals.from_output(
        FurtherOutput(pooler_output=features if one_tensor else list(features), further=[1])
    )
    output: Any = visuals.output()
    found = copied(output)
    assert type(found) is type(output)
    assert isinstance(found, CompressedVisionOutput)
    assert type(found.pooler_output) is type(output.pooler_output)
    assert torch.equal(torch.stack(list(found.pooler_output)), features)
    assert found.further == [1]


def test_features_of_all_images_in_one_row_are_refused() -> None:
    with one_sentence(ValueError, "[10, 3]"):
        EncodedVisuals.from_output(BaseModelOutputWithPooling(pooler_output=tokens()))
