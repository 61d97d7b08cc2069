"""NEFTune's noise does not change the scores: they are taken in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers.integrations.neftune import neftune_post_forward_hook

from ..common import FAMILIES, WHAT, encode, image, make_pair
from ..outcome import report


def problems() -> Iterator[str]:
    """Compare scores in training, with noise on the embeddings, with those in evaluation."""
    for family in FAMILIES:
        _, model, processor = make_pair(family)
        inputs = encode(processor, (image(1), WHAT))
        with torch.no_grad():
            model(**inputs)
        expected = model.token_compression.last.samples[0].scores.clone()
        embedding = model.get_input_embeddings()
        embedding.neftune_noise_alpha = 5.0
        embedding.register_forward_hook(neftune_post_forward_hook)
        model.train()
        torch.manual_seed(0)
        model(**inputs)
        found = model.token_compression.last.samples[0].scores
        share = ((found - expected).abs().max() / expected.abs().max()).item()
        if share > 1e-5:
            yield f"{family}: scores in training differ by {share:.1%} of their maximum"


if __name__ == "__main__":
    report(problems)
