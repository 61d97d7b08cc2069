"""What the probe holds, and for how long."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tiny_models import ONE_IMAGE, make_inputs, tiny_model

from hf_token_compress.compression.reading import read_prompt

pytestmark = pytest.mark.core


@pytest.mark.parametrize("depth", [0, 2])
def test_large_tensors_are_freed_without_the_garbage_collector(depth: int) -> None:
    gc.collect()
    gc.disable()
    try:
        with torch.no_grad():
            prompt, layer = read_prompt(tiny_model(), make_inputs([ONE_IMAGE]), scoring_depth=depth)
        held = [weakref.ref(tensor) for tensor in (prompt.inputs_embeds, layer.query, layer.key)]
        del prompt, layer
        assert [reference() for reference in held] == [None, None, None]
    finally:
        gc.enable()
