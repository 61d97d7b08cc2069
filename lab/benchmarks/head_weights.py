"""Head weights for the scorer "hawk", found by this library's relevance instead of by ablation.

    python -m lab.benchmarks.head_weights --model tiny-qwen2-vl --learn 100 --per-kind 100

The answers to some questions are explained. The weight of a head is the correlation of its scores
with the relevance, in the mean over the questions, where that is above zero. Other questions are
then asked with equal weights and with these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from hf_token_compress import MultimodalPrompt, Scorer, compress, prepare_inputs, uncompress
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.evaluation import measure_retention, retention_markdown
from hf_token_compress.evaluation.settings import ConfiguredScorer
from hf_token_compress.relevance import relevance
from hf_token_compress.scorers.hawk import scores_of_heads
from hf_token_compress.scoring_layer import ScoringLayer

from ..arguments import (
    add_model,
    add_questions,
    add_retention_ratios,
    add_threads,
    make_parser,
    positive,
    set_threads,
)
from ..loading import load_model
from ..testbed.arguments import add_source, questions_of

_MAPPER_SEED = 9_500_000
"""Of the questions that weights are found on."""


class _Heads(Scorer):
    """Scores nothing, and remembers the scores of the heads, float32 [heads, N] of each prompt."""

    needs = frozenset({"unrotated_layer"})

    @override
    def score(self, prompt: MultimodalPrompt, *, unrotated_layer: ScoringLayer) -> Tensor:
        self.found = [
            scores_of_heads(unrotated_layer, sample, own.nonzero().flatten())
            for sample, own in enumerate(prompt.visual_mask)
        ]
        return torch.zeros(prompt.visual_mask.shape)


def head_weights(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    batch_size: int = 8,
    max_new_tokens: int = 8,
) -> list[float]:
    """One weight per query head of layer 0, at least 0, with sum 1.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        samples: Questions whose answers are explained.
        batch_size: Samples per batch.
        max_new_tokens: Longest answer.

    Raises:
        ValueError: No head finds what answers depend on.
    """
    total = 0.0
    for start in range(0, len(samples), batch_size):
        batch = list(samples[start : start + batch_size])
        inputs = dict(encode_samples(processor, batch).to(model.device))
        report = relevance(model, inputs, max_new_tokens=max_new_tokens, targets="sum")
        heads = _Heads()
        compress(model, {"retention_ratio": 0.5, "min_visual_tokens": 0})
        try:
            model.token_compression.scorer = heads
            with torch.inference_mode():
                prepare_inputs(model, **inputs)
        finally:
            uncompress(model)
        for own, explained in zip(heads.found, report.samples, strict=True):
            wanted = explained.scores.clamp(min=0).to(own)  # [N]
            both = torch.cat([wanted[None], own])  # [1 + heads, N]
            total = total + torch.corrcoef(both)[0, 1:].nan_to_num()  # [heads]
    weights = torch.as_tensor(total).clamp(min=0)
    if not bool(weights.any()):
        raise ValueError("No head of layer 0 correlates with relevance: keep equal weights.")
    return [round(float(weight), 6) for weight in weights / weights.sum()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the weights, and a table with and without them."""
    parser = make_parser("lab.benchmarks.head_weights", __doc__)
    add_model(parser, default=None)
    add_source(parser)
    add_questions(parser, per_kind=25)
    add_retention_ratios(parser, (0.25, 0.1))
    add_threads(parser)
    parser.add_argument("--learn", type=positive, default=100, help="questions to explain")
    parser.add_argument("--batch-size", type=positive, default=8, help="questions per batch")
    parser.add_argument("--dtype", default="auto", help="dtype of the model")
    options = parser.parse_args(arguments)
    set_threads(options)
    samples = questions_of(options)
    per_kind = -(-options.learn // len({own.kind for own in samples}))
    learned = questions_of(options, per_kind=per_kind, seed=_MAPPER_SEED, split="mapper")
    model, processor = load_model(options.model, dtype=options.dtype)
    weights = head_weights(model, processor, learned, batch_size=options.batch_size)
    print(f"head_weights={weights}", flush=True)
    results = measure_retention(
        model,
        processor,
        samples,
        scorers=["hawk", ConfiguredScorer("hawk, weighted", "hawk", {"head_weights": weights})],
        retention_ratios=options.retention_ratios,
        batch_size=options.batch_size,
        max_new_tokens=8,
    )
    print(retention_markdown(results))


if __name__ == "__main__":
    main()
