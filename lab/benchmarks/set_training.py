"""Train a mapper for the set of tokens that is kept, on questions with ground truth.

    python -m lab.benchmarks.set_training --model testbed --data questions.jsonl --output mapper
    hf-token-compress evaluate --model testbed --scorer mapper:mapper --data other_questions.jsonl

`hf-token-compress train` teaches a mapper how relevant each token is. Such a mapper ranks all
tokens of a thing that the question names before any around it, although a few of them suffice and
the answer may lie beside it. Here the mapper learns to cover every box that the answer depends on:
the loss of a box is −log(1 − exp(−n / enough)) for n kept tokens inside it, so the first ones count
most. Kept tokens are a differentiable top-k of the logits, for each retention ratio. So that it
learns early where a box is, the cross-entropy of its shares to the tokens inside is added.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_token_compress import __version__
from hf_token_compress.compression.identity import identify
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.config import TokenCompressionConfig
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.sources import JsonLines, SampleSource
from hf_token_compress.evaluation.truth import has_ground_truth, tokens_in_boxes
from hf_token_compress.mapper import MapperConfig, MapperInput, RelevanceMapper
from hf_token_compress.mapper.inputs import INPUTS, WORDS
from hf_token_compress.prompt import VisualSpan
from hf_token_compress.scorers.mapper_inputs import mapper_inputs
from hf_token_compress.selection.structure import structure_tokens

from ..arguments import add_model, add_retention_ratios, make_parser, positive
from ..loading import load_model

_NETWORKS = ("grid", "question")
_BATCH = 32
_LEARNING_RATE = 2e-3
_WARMUP = 0.05
_STEPS_OF_BISECTION = 40

_OTHER_GRIDS = 0.5
"""What a token of a coarser grid counts: the last one, of the tiles, shows the same again."""

_SMALLEST_COVERAGE = 0.02
"""Added to coverage, so that a box without any kept token has a finite loss."""


@dataclass(frozen=True)
class Example:
    """A question with N visual tokens.

    Attributes:
        seen: What the mapper sees.
        boxes: float [boxes, N], what each token counts in each box.
        structure: int64 [n], tokens that are kept whatever their logits.
    """

    seen: MapperInput
    boxes: Tensor
    structure: Tensor


@torch.no_grad()
def read_examples(
    model: Any,
    processor: Any,
    samples: Sequence[Sample] | SampleSource,
    inputs: Collection[str] = INPUTS,
) -> Iterator[Example]:
    """Questions about images, without those that depend on no particular or an unknown place."""
    for start in range(0, len(samples), _BATCH):
        batch = [samples[number] for number in range(start, min(start + _BATCH, len(samples)))]
        prompt, layer = read_prompt(model, encode_samples(processor, batch))
        inputs_of = mapper_inputs(prompt, layer, "image", inputs)
        for sample, seen, visuals in zip(batch, inputs_of, prompt.visuals, strict=True):
            if seen is not None and has_ground_truth(sample) and sample.relevant_boxes:
                (visual,) = visuals
                yield Example(
                    seen.to("cpu"), box_weights(sample, visual), structure_tokens(visuals)
                )


def box_weights(sample: Sample, visual: VisualSpan) -> Tensor:
    """What each of N visual tokens counts in each relevant box, float32 [boxes, N]."""
    boxes = sample.relevant_boxes or ()
    weights = torch.zeros(len(boxes), len(visual.positions))
    for number, box in enumerate(boxes):
        for grid in visual.grids:
            inside = tokens_in_boxes((box,), sample.image.size, grid)  # [rows * columns]
            weight = 1.0 if grid is visual.grids[-1] else _OTHER_GRIDS
            weights[number, grid.index.flatten()] = weight * inside
    return weights


def soft_top_k(logits: Tensor, count: int) -> Tensor:
    """How much each token is kept: sigmoid(logits − t), with t such that they sum to `count`.

    Args:
        logits: float [N].
        count: Tokens to keep, 0 < count < N.

    Returns:
        float [N].
    """
    with torch.no_grad():
        low, high = logits.min() - 20, logits.max() + 20
        for _ in range(_STEPS_OF_BISECTION):
            middle = (low + high) / 2
            if torch.sigmoid(logits - middle).sum() > count:
                low = middle
            else:
                high = middle
        kept = torch.sigmoid(logits - middle)
        slope = (kept * (1 - kept)).sum().clamp(min=1e-3)
    # One step of Newton's method changes nothing but brings the gradient of t.
    threshold = middle + (torch.sigmoid(logits - middle).sum() - count) / slope
    return torch.sigmoid(logits - threshold)


def coverage_loss(
    logits: Tensor,
    example: Example,
    retention_ratio: float,
    enough: float,
    structure_share: float = TokenCompressionConfig().structure_share,
) -> Tensor:
    """Mean over the boxes of −log(1 − exp(−n / enough)), n what is kept inside a box.

    Args:
        logits: float [N].
        example: The question.
        retention_ratio: Share of the tokens to keep.
        enough: Number of tokens; more than a few times as many add nothing.
        structure_share: As `TokenCompressionConfig` takes it.
    """
    budget = max(1, round(retention_ratio * len(logits)))
    count = budget - min(len(example.structure), int(structure_share * budget))
    free = torch.ones_like(logits, dtype=torch.bool)
    free[example.structure] = False
    kept = soft_top_k(logits[free], count)  # [free tokens]
    inside = (example.boxes[:, free] * kept).sum(dim=1)  # [boxes]
    coverage = 1 - torch.exp(-inside / enough)
    return -torch.log(coverage + _SMALLEST_COVERAGE).mean()


def share_loss(logits: Tensor, example: Example) -> Tensor:
    """Mean over the boxes of two cross-entropies: of the box, and of each token inside it.

    Args:
        logits: float [N].
        example: The question.
    """
    shares = logits.log_softmax(dim=0)  # [N]
    inside = example.boxes > 0  # [boxes, N]
    of_box = shares.masked_fill(~inside, -torch.inf).logsumexp(dim=1)  # [boxes]
    of_token = (shares * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
    found = inside.any(dim=1)  # a box between two rows of tokens has none inside
    losses = -(of_box + of_token)[found] / 2
    return losses.mean() if len(losses) else logits.sum() * 0


def train_for_sets(
    mapper: RelevanceMapper,
    examples: Sequence[Example],
    *,
    retention_ratios: Sequence[float],
    enough: float,
    epochs: int,
    share_weight: float = 0.0,
    seed: int = 0,
) -> list[float]:
    """Train a mapper in place.

    Returns:
        The mean loss of each epoch.
    """
    weights = [weight for weight in mapper.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=_LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(examples) / _BATCH)
    step = 0
    history: list[float] = []
    for _ in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(examples), generator=generator).split(_BATCH):
            batch = [examples[number] for number in chosen.tolist()]
            rise = min(1.0, (step + 1) / max(1.0, _WARMUP * steps))
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * rise * 0.5 * (1 + math.cos(math.pi * step / steps))
            pairs = list(zip(mapper([example.seen for example in batch]), batch, strict=True))
            losses = [
                coverage_loss(logits, example, ratio, enough)
                for logits, example in pairs
                for ratio in retention_ratios
            ]
            loss = torch.stack(losses).mean()
            if share_weight > 0:
                shares = [share_loss(logits, example) for logits, example in pairs]
                loss = loss + share_weight * torch.stack(shares).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            step += 1
            total += float(loss.detach()) * len(batch)
        history.append(total / len(examples))
    return history


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a mapper and write its folder."""
    parser = make_parser("lab.benchmarks.set_training", __doc__)
    add_model(parser)
    parser.add_argument("--data", type=Path, required=True, help="questions with relevant_boxes")
    parser.add_argument("--output", type=Path, required=True, help="folder for the mapper")
    add_retention_ratios(parser, default=(0.25, 0.1))
    parser.add_argument("--network", choices=_NETWORKS, default="question", help="network")
    parser.add_argument("--epochs", type=positive, default=7, help="passes over the questions")
    parser.add_argument("--enough", type=float, default=1.0, help="tokens that cover a box")
    parser.add_argument(
        "--share-weight", type=float, default=0.3, help="of the cross-entropy of its shares"
    )
    parser.add_argument(
        "--temperature", type=float, default=2.0, help="divides the logits of the trained mapper"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order")
    parser.add_argument("--dtype", default="bfloat16", help="dtype of the model")
    options = parser.parse_args(arguments)
    model, processor = load_model(options.model, dtype=options.dtype)
    data = JsonLines(options.data)
    inputs = (WORDS,) if options.network == "question" else INPUTS
    examples = list(read_examples(model, processor, data, inputs))
    torch.manual_seed(options.seed)
    identity = identify(model, options.model)
    config = MapperConfig(base_model=identity, network=options.network, inputs=inputs)
    mapper = RelevanceMapper(config)
    history = train_for_sets(
        mapper,
        examples,
        retention_ratios=options.retention_ratios,
        enough=options.enough,
        epochs=options.epochs,
        share_weight=options.share_weight,
        seed=options.seed,
    )
    # The logits of a hard top-k would leave the diverse selection nothing to choose from.
    network: Any = mapper.network
    with torch.no_grad():
        network.output.weight /= options.temperature
    training = {
        "data": data.describe(),
        "samples": len(examples),
        "objective": "coverage of relevant boxes",
        "retention_ratios": options.retention_ratios,
        "enough": options.enough,
        "share_weight": options.share_weight,
        "temperature": options.temperature,
        "epochs": options.epochs,
        "seed": options.seed,
    }
    mapper.config = replace(
        mapper.config,
        training=training,
        metrics={"loss": history[-1]},
        versions={name: version(name) for name in ("torch", "transformers")}
        | {"hf_token_compress": __version__},
    )
    mapper.eval().save_pretrained(options.output)
    print(f"{len(examples):,} questions, loss by epoch: {', '.join(f'{x:.3f}' for x in history)}")


if __name__ == "__main__":
    main()
