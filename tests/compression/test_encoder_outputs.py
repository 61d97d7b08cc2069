"""Features that come in something other than a mapping are refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import ModelPair
from tiny_models import HIDDEN, ONE_IMAGE, make_inputs

from hf_token_compress import prepare_inputs

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    "given",
    [torch.zeros(12, HIDDEN), [torch.zeros(12, HIDDEN)], [], "image"],
    ids=lambda given: type(given).__name__,
)
def test_no_mapping(given: Any, pair: ModelPair) -> None:
    inputs = {**make_inputs([ONE_IMAGE]), "mm_encoder_outputs": given}
    kind = type(given).__name__
    for call in (pair.compressed, pair.compressed.generate):
        with one_sentence(TypeError, "mm_encoder_outputs", kind):
            call(**inputs)
    with one_sentence(TypeError, "mm_encoder_outputs", kind):
        prepare_inputs(pair.compressed, **inputs)
