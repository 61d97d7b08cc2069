"""The random models must be able to tell right from wrong: their outputs depend on everything."""

from __future__ import annotations

import pytest
import torch
from pairs import answer
from tiny_models import ONE_IMAGE, PADDING, RAGGED, make_inputs, tiny_model

pytestmark = pytest.mark.core


def test_answers_vary_along_the_text_and_between_prompts() -> None:
    inputs = make_inputs(RAGGED)
    tokens = answer(tiny_model().generate(**inputs, max_new_tokens=12, do_sample=False), inputs)
    assert all(len(row.unique()) >= 4 for row in tokens)
    assert len({tuple(row.tolist()) for row in tokens}) == len(RAGGED)


def test_every_quarter_of_the_visual_tokens_changes_the_next_token_logits() -> None:
    model = tiny_model()
    inputs = make_inputs([ONE_IMAGE])
    logits = model(**inputs).logits[:, -1]
    for quarter in inputs["pixel_values"].chunk(4):
        saved = quarter.clone()
        quarter.neg_()
        assert (model(**inputs).logits[:, -1] - logits).abs().max() > 0.1
        quarter.copy_(saved)
    torch.testing.assert_close(model(**inputs).logits[:, -1], logits, rtol=0, atol=0)


def test_a_prompt_is_the_same_alone_and_in_a_batch() -> None:
    batch = make_inputs(RAGGED)
    for row, prompt in enumerate(RAGGED):
        alone = make_inputs([prompt])
        real = batch["input_ids"][row] != PADDING
        assert torch.equal(batch["input_ids"][row][real], alone["input_ids"][0])
    assert torch.equal(make_inputs([ONE_IMAGE])["pixel_values"], batch["pixel_values"][: 4 * 48])
