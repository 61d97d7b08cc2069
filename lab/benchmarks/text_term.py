"""Whether the text term of "gated_fusion" does harm where words do not say what to look for.

    python -m lab.benchmarks.text_term --model FOLDER --per-kind 25 --seed 6500

Three kinds of prompts: the questions as they are ("short"), with the instructions of benchmarks
around them ("long"; tiny models do not understand these), and with a projector that does not map
images close to words ("unaligned"). For the last, directions of word embeddings are turned at
random before they are compared with the image, in such a way that mean and covariance of the
vocabulary stay; attention is as it was. Each is asked with the scorers "attention" and
"gated_fusion" and the selection "diverse".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from hf_token_compress import MultimodalPrompt, register_scorer
from hf_token_compress.data.sample import Sample
from hf_token_compress.evaluation import (
    RetentionResult,
    measure_retention,
    retention_markdown,
)
from hf_token_compress.scorers.gated_fusion import GatedFusionScorer
from hf_token_compress.word_statistics import WordStatistics

from ..arguments import (
    add_model,
    add_questions,
    add_retention_ratios,
    add_threads,
    comma_list,
    make_parser,
    positive,
    set_threads,
)
from ..loading import load_model
from ..testbed.arguments import add_source, questions_of

PROMPTS = ("short", "long", "unaligned")

_BEFORE = "You are given a picture. Look at the whole of it with care before you decide."
_AFTER = "Answer the question using a single word or phrase."
_UNALIGNED = "gated_fusion, words turned"


@register_scorer(_UNALIGNED)
class TurnedWordsScorer(GatedFusionScorer):
    """`GatedFusionScorer` of a model whose projector is not aligned with word embeddings."""

    @override
    def score(
        self, prompt: MultimodalPrompt, *, word_statistics: WordStatistics, **needed: Any
    ) -> Tensor:
        turned = dataclasses.replace(prompt, embed=partial(_turned, prompt, word_statistics))
        return super().score(turned, word_statistics=word_statistics, **needed)


def _turned(prompt: MultimodalPrompt, words: WordStatistics) -> Tensor:
    """Embeddings, [B, S, D], in which those of text are turned around the mean of the words."""
    width = len(words.mean)
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(width, width, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(random).Q  # [D, D]
    ridge = 1e-6 * words.covariance.diagonal().mean() * torch.eye(width)
    factor = torch.linalg.cholesky((words.covariance.cpu() + ridge).double())  # [D, D]
    turn = factor @ rotation @ torch.linalg.inv(factor)
    embeds = prompt.inputs_embeds
    mean = words.mean.to(embeds)
    others = ((embeds - mean).double() @ turn.T.to(embeds.device)).to(embeds) + mean
    return torch.where(prompt.visual_mask[..., None].to(embeds.device), embeds, others)


def long_prompts(samples: Sequence[Sample]) -> list[Sample]:
    """The same questions in the middle of a benchmark's instructions."""
    return [
        dataclasses.replace(own, question=f"{_BEFORE} {own.question} {_AFTER}") for own in samples
    ]


def measure_text_term(
    model: Any, processor: Any, samples: Sequence[Sample], prompts: Sequence[str], **options: Any
) -> dict[str, list[RetentionResult]]:
    """Right answers by kind of prompt, scorer and ratio.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        samples: The questions.
        prompts: Some of `PROMPTS`.
        **options: Passed to `measure_retention`.
    """
    found = {}
    for name in prompts:
        found[name] = measure_retention(
            model,
            processor,
            long_prompts(samples) if name == "long" else samples,
            scorers=["attention", _UNALIGNED if name == "unaligned" else "gated_fusion"],
            selection="diverse",
            **options,
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each kind of prompt."""
    parser = make_parser("lab.benchmarks.text_term", __doc__)
    add_model(parser, default=None)
    add_source(parser)
    add_questions(parser, per_kind=25)
    add_retention_ratios(parser, (0.25, 0.1))
    add_threads(parser)
    parser.add_argument(
        "--prompts", type=comma_list(str), default=list(PROMPTS), help="which, between commas"
    )
    parser.add_argument("--batch-size", type=positive, default=8, help="questions per batch")
    parser.add_argument("--dtype", default="auto", help="dtype of the model")
    options = parser.parse_args(arguments)
    set_threads(options)
    samples = questions_of(options)
    model, processor = load_model(options.model, dtype=options.dtype)
    found = measure_text_term(
        model,
        processor,
        samples,
        options.prompts,
        retention_ratios=options.retention_ratios,
        batch_size=options.batch_size,
        max_new_tokens=8,
    )
    for prompts, results in found.items():
        print(f"\n{prompts}, {len(samples)} questions\n\n{retention_markdown(results)}", flush=True)


if __name__ == "__main__":
    main()
