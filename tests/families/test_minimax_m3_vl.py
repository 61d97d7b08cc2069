"""MiniMax M3 with the sparse layers of its checkpoints."""

from __future__ import annotations

import pytest
from errors import one_sentence
from pairs import HALF
from tiny_models import ONE_IMAGE, make_inputs, skipped_before, tiny_model

from hf_token_compress import compress

pytestmark = [pytest.mark.core, *filter(None, [skipped_before("5.24.0")])]


def test_sparse_layers_are_refused() -> None:
    layers = ["full_attention", "full_attention", "minimax_m3_sparse"]
    model = compress(tiny_model(family="minimax_m3_vl", layer_types=layers), HALF)
    with one_sentence(ValueError, "sparse", "layer_types"):
        model(**make_inputs([ONE_IMAGE], family="minimax_m3_vl"))
