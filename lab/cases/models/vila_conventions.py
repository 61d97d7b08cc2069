"""VILA keeps the conventions of Transformers that LLaVA keeps.

A resized head survives `post_init`, features come as a tuple on request, and a tied embedding is
sharded together with the head, or neither is.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..outcome import report
from ..random_models import vila


def problems() -> Iterator[str]:
    """Check the three conventions on uncompressed models."""
    model = vila()
    model.resize_token_embeddings(109)
    before = model.lm_head.weight.clone()
    model.post_init()
    if not torch.equal(model.lm_head.weight, before):
        yield "post_init draws a resized head anew"

    features = vila().get_video_features(torch.randn(1, 2, 3, 28, 28), return_dict=False)
    if not isinstance(features, tuple):
        yield f"get_video_features(return_dict=False) returns {type(features).__name__}"

    plan = vila(tie_word_embeddings=True).tp_plan
    sharded = [name in plan for name in ("lm_head", "model.language_model.embed_tokens")]
    if len(set(sharded)) > 1:
        yield "the tensor parallel plan shards one of the tied head and embedding"


if __name__ == "__main__":
    report(problems)
