"""The outputs of the random models depend on all inputs, so that tests can find errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs import answer, assert_same
from tiny_models import (
    FAMILIES,
    ONE_IMAGE,
    ONE_VIDEO,
    PADDING,
    family_prompts,
    make_inputs,
    tiny_model,
)

pytestmark = pytest.mark.core
each_ragged_batch = pytest.mark.parametrize(
    ("family", "prompts"), family_prompts("ragged", "ragged_videos")
)


@each_ragged_batch
def test_answers_vary_along_the_text_and_between_prompts(family: str, prompts: Any) -> None:
    inputs = make_inputs(prompts, family=family)
    model = tiny_model(family=family)
    tokens = answer(model.generate(**inputs, max_new_tokens=12, do_sample=False), inputs)
    assert all(len(sample.unique()) >= 4 for sample in tokens)
    assert len({tuple(sample.tolist()) for sample in tokens}) == len(prompts)


@pytest.mark.parametrize("prompt", [ONE_IMAGE, ONE_VIDEO], ids=["image", "video"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_quarter_of_the_pixels_changes_the_next_token_logits(
    family: str, prompt: Any
) -> None:
    model = tiny_model(family=family)
    inputs = make_inputs([prompt], family=family)
    logits = model(**inputs).logits[:, -1]
    name = "pixel_values" if "pixel_values" in inputs else "pixel_values_videos"
    for quarter in inputs[name].view(4, -1):
        saved = quarter.clone()
        quarter.neg_()
        assert (model(**inputs).logits[:, -1] - logits).abs().max() > 0.1
        quarter.copy_(saved)
    torch.testing.assert_close(model(**inputs).logits[:, -1], logits, rtol=0, atol=0)


@each_ragged_batch
def test_a_prompt_is_the_same_alone_and_in_a_batch(family: str, prompts: Any) -> None:
    batch = make_inputs(prompts, family=family)
    logits = tiny_model(family=family)(**batch).logits
    for sample, prompt in enumerate(prompts):
        alone = make_inputs([prompt], family=family)
        real = batch["input_ids"][sample] != PADDING
        assert torch.equal(batch["input_ids"][sample][real], alone["input_ids"][0])
        assert_same(logits[sample][real], tiny_model(family=family)(**alone).logits[0])
