"""What an accelerator does in few launches, here on a CPU: it equals the small pieces of a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs import assert_same
from tiny_models import IMAGE_AND_VIDEO, ONE_IMAGE, RAGGED, make_inputs, tiny_model

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression import fast_path
from hf_token_compress.compression.identity import identify
from hf_token_compress.kernels.instruction_attention import torch_reference
from hf_token_compress.mapper import MapperConfig, MapperSet, RelevanceMapper
from hf_token_compress.mapper.inputs import INPUTS
from hf_token_compress.scorers import embedding_statistics, mapper_inputs, visual_tokens
from hf_token_compress.scorers.mapper import MapperScorer
from hf_token_compress.selection import keep_mask

pytestmark = pytest.mark.core


@pytest.fixture
def few_launches(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Switches to the large pieces of an accelerator."""

    def switch() -> None:
        for module in (fast_path, embedding_statistics, mapper_inputs, visual_tokens, keep_mask):
            monkeypatch.setattr(module, "few_launches", lambda _: True)
        monkeypatch.setattr(torch_reference, "_few_launches", lambda _: True)

    return switch


def mapper_of(model: Any, modality: str, network: str) -> RelevanceMapper:
    config = MapperConfig(identify(model), network=network, modality=modality, inputs=INPUTS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RelevanceMapper(config).eval()


@pytest.mark.parametrize(
    "scorer", ["attention", "gated_fusion", "whitened_similarity", "conv1d", "grid"]
)
@pytest.mark.parametrize("prompts", [RAGGED, [ONE_IMAGE, IMAGE_AND_VIDEO]], ids=["images", "both"])
def test_prompts_are_scored_together_as_one_by_one(
    scorer: str, prompts: list[Any], few_launches: Any
) -> None:
    model, inputs = tiny_model().eval(), make_inputs(prompts)
    setting = {"retention_ratio": 0.4, "min_visual_tokens": 0, "selection": "diverse"}
    name = "attention" if scorer in ("conv1d", "grid") else scorer
    compress(model, {**setting, "scorer": name})
    if scorer in ("conv1d", "grid"):
        mappers = {part: mapper_of(model, part, scorer) for part in ("image", "video")}
        model.token_compression.scorer = MapperScorer(MapperSet(mappers, "made"))
    found = []
    for switch in (lambda: None, few_launches):
        switch()
        prepare_inputs(model, **inputs)
        found.append(model.token_compression.last.samples)
    for alone, together in zip(*found, strict=True):
        assert (alone.scores is None) == (together.scores is None)
        if alone.scores is not None:
            assert_same(together.scores, alone.scores)
        assert torch.equal(together.kept_indices, alone.kept_indices)
