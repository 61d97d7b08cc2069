"""What the probe holds, and for how long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import ONE_IMAGE, make_inputs, tiny_model
from torch import Tensor

from hf_token_compress import compress
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.scorers.attention import AttentionScorer

pytestmark = pytest.mark.core


@pytest.fixture(autouse=True, scope="module")
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("depth", [0, 2])
def test_what_read_prompt_returns_is_freed_with_it(depth: int) -> None:
    with torch.no_grad():
        prompt, layer = read_prompt(tiny_model(), make_inputs([ONE_IMAGE]), scoring_depth=depth)
    held = [weakref.ref(tensor) for tensor in (prompt.inputs_embeds, layer.query, layer.key)]
    del prompt, layer
    assert [reference() for reference in held] == [None, None, None]


@pytest.mark.parametrize("depth", [0, 2])
def test_a_compressed_call_frees_what_its_scorer_saw(depth: int) -> None:
    seen: list[Any] = []

    class Watcher(AttentionScorer):
        def score(self, prompt: Any, *, scoring_layer: Any) -> Tensor:
            tensors = (prompt.inputs_embeds, scoring_layer.query, scoring_layer.key)
            seen.extend(map(weakref.ref, tensors))
            return super().score(prompt, scoring_layer=scoring_layer)

    model = compress(tiny_model(), {"retention_ratio": 0.25, "scorer": "attention"})
    model.token_compression.scorer = Watcher(depth)
    model(**make_inputs([ONE_IMAGE]))
    assert [reference() for reference in seen] == [None, None, None]
