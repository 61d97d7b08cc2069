"""Train a mapper for the set of tokens that is kept, on questions with ground truth.

    python -m lab.testbed.questions_file --split mapper --kind place,attribute,relation,presence \
      --per-image 2 --per-kind 5200 --seed 3100000 --out questions
    python -m lab.benchmarks.set_training --model testbed --data questions/questions.jsonl \
      --output mapper
    hf-token-compress evaluate --model testbed --scorer mapper:mapper --data other_questions.jsonl

`hf-token-compress train` teaches a mapper how relevant each token is. Such a mapper ranks all
tokens of a thing that the question names before any around it, although a few of them suffice and
the answer may lie beside it. Here the mapper learns to cover every box that the answer depends on:
the loss of a box is −log(1 − exp(−n / enough)) for n kept tokens inside it, so the first ones count
most. Kept tokens are a differentiable top-k of the logits, for each retention ratio. So that it
learns early where a box is, the cross-entropy of its shares to the tokens inside is added.

Questions about one image stand next to each other in the file: the image is encoded once for them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hf_token_compress import __version__
from hf_token_compress.compression.identity import identify
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.compression.rewriting import with_whole_features
from hf_token_compress.config import TokenCompressionConfig
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.sources import JsonLines
from hf_token_compress.evaluation.digests import visuals_digest
from hf_token_compress.evaluation.truth import has_ground_truth, tokens_in_boxes
from hf_token_compress.mapper import MapperConfig, MapperInput, RelevanceMapper
from hf_token_compress.mapper.inputs import INPUTS, WORDS
from hf_token_compress.padding import past_end
from hf_token_compress.prompt import VisualSpan
from hf_token_compress.relevance.explain import explained_family, run_vision
from hf_token_compress.scorers.mapper_inputs import mapper_inputs
from hf_token_compress.selection.structure import structure_tokens

from ..arguments import add_model, add_retention_ratios, make_parser, positive
from ..loading import load_model

_NETWORKS = ("grid", "question")
_BATCH = 32
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 0.01
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


def read_examples(
    model: Any,
    processor: Any,
    samples: Iterable[Sample],
    inputs: Collection[str] = INPUTS,
) -> Iterator[Example]:
    """Questions about one image each, without those that depend on no particular or unknown place.

    The vision part runs once for questions in succession about the same image.
    """
    usable = (own for own in samples if has_ground_truth(own) and own.relevant_boxes)
    for _, same in groupby(usable, key=lambda own: visuals_digest(own.visuals)):
        yield from _examples_of_one_image(model, processor, list(same), inputs)


@torch.no_grad()
def _examples_of_one_image(
    model: Any, processor: Any, samples: Sequence[Sample], inputs: Collection[str]
) -> list[Example]:
    family = explained_family(model)
    encoded = run_vision(model, family, encode_samples(processor, samples[:1])).encoded["image"]
    (features,) = encoded.features  # [N, D]
    index = torch.arange(len(features)).repeat(len(samples))
    repeated = encoded.choose(index, [len(features)] * len(samples))
    questions = with_whole_features(family, encode_samples(processor, samples), {"image": repeated})
    prompt, layer = read_prompt(model, questions)
    found = mapper_inputs(prompt, layer, "image", inputs)
    seen = [own.to("cpu") for own in found if own is not None]
    tokens = None if seen[0].tokens is None else seen[0].tokens.clone()  # [N, D], for all of them
    return [
        Example(replace(own, tokens=tokens), box_weights(sample, visual), structure_tokens(visuals))
        for sample, own, visuals in zip(samples, seen, prompt.visuals, strict=True)
        for visual in visuals
    ]


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


@dataclass(frozen=True)
class BoxBatch:
    """Where the K boxes of P questions lie, padded to N visual tokens.

    Attributes:
        present: bool [P, N], False on padding.
        free: bool [P, N], tokens that are kept for their logits.
        boxes: float [K, N], as in `Example`.
        owner: int64 [K], the question of each box.
    """

    present: Tensor
    free: Tensor
    boxes: Tensor
    owner: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> BoxBatch:
        """The boxes of all examples."""
        present = ~past_end([own.seen.count for own in examples])  # [P, N]
        free = present.clone()
        for row, example in zip(free, examples, strict=True):
            row[example.structure] = False
        boxes = [box for own in examples for box in own.boxes]
        counts = torch.tensor([len(own.boxes) for own in examples])
        owner = torch.arange(len(examples)).repeat_interleave(counts)
        return cls(present, free, pad_sequence(boxes, batch_first=True), owner)

    def mean(self, losses: Tensor, counted: Tensor | None = None) -> Tensor:
        """Mean over the questions of the mean over their boxes.

        Args:
            losses: float [K], or those of the boxes that count.
            counted: bool [K], which these are; by default all.
        """
        owner = self.owner if counted is None else self.owner[counted]
        boxes = owner.bincount(minlength=len(self.present))  # [P]
        return (losses / boxes[owner]).sum() / len(self.present)


def soft_top_k(logits: Tensor, counts: Tensor) -> Tensor:
    """How much each token is kept: sigmoid(logits − t), with t such that they sum to a count.

    Args:
        logits: float [P, N]; -inf where a token cannot be kept.
        counts: int64 [P], tokens to keep, above 0 and below those that can be.

    Returns:
        float [P, N].
    """
    counts = counts.unsqueeze(1)
    with torch.no_grad():
        low = logits.masked_fill(logits.isneginf(), torch.inf).amin(dim=1, keepdim=True) - 20
        high = logits.amax(dim=1, keepdim=True) + 20  # [P, 1]
        for _ in range(_STEPS_OF_BISECTION):
            middle = (low + high) / 2
            too_many = torch.sigmoid(logits - middle).sum(dim=1, keepdim=True) > counts
            low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
        kept = torch.sigmoid(logits - middle)
        slope = (kept * (1 - kept)).sum(dim=1, keepdim=True).clamp(min=1e-3)
    # One step of Newton's method changes nothing but brings the gradient of t.
    total = torch.sigmoid(logits - middle).sum(dim=1, keepdim=True)
    return torch.sigmoid(logits - (middle + (total - counts) / slope))


def coverage_loss(
    logits: Tensor,
    batch: BoxBatch,
    retention_ratio: float,
    enough: float,
    structure_share: float = TokenCompressionConfig().structure_share,
) -> Tensor:
    """Mean over the boxes of −log(1 − exp(−n / enough)), n what is kept inside a box.

    Args:
        logits: float [P, N]; anything on padding.
        batch: The questions.
        retention_ratio: Share of the tokens to keep.
        enough: Number of tokens; more than a few times as many add nothing.
        structure_share: As `TokenCompressionConfig` takes it.
    """
    counts = []
    for tokens, free in zip(batch.present.sum(1).tolist(), batch.free.sum(1).tolist(), strict=True):
        budget = max(1, round(retention_ratio * tokens))
        counts.append(budget - min(tokens - free, int(structure_share * budget)))
    kept = soft_top_k(logits.masked_fill(~batch.free, -torch.inf), torch.tensor(counts))  # [P, N]
    inside = (batch.boxes * kept[batch.owner]).sum(dim=1)  # [K]
    coverage = 1 - torch.exp(-inside / enough)
    return batch.mean(-torch.log(coverage + _SMALLEST_COVERAGE))


def share_loss(logits: Tensor, batch: BoxBatch) -> Tensor:
    """Mean over the boxes of two cross-entropies: of the box, and of each token inside it.

    Args:
        logits: float [P, N]; anything on padding.
        batch: The questions.
    """
    inside = batch.boxes > 0  # [K, N]
    found = inside.any(dim=1)  # a box between two rows of tokens has none inside
    inside = inside[found]
    shares = logits.masked_fill(~batch.present, -torch.inf).log_softmax(dim=1)  # [P, N]
    own = shares[batch.owner[found]]
    of_box = own.masked_fill(~inside, -torch.inf).logsumexp(dim=1)
    of_token = own.masked_fill(~inside, 0.0).sum(dim=1) / inside.sum(dim=1)
    return batch.mean(-(of_box + of_token) / 2, found)


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
    optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(examples) / _BATCH)
    step = 0
    history: list[float] = []
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(examples), generator=generator).split(_BATCH)
        for chosen in track(order, f"epoch {epoch + 1}"):
            batch = [examples[number] for number in chosen.tolist()]
            rise = min(1.0, (step + 1) / max(1.0, _WARMUP * steps))
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * rise * 0.5 * (1 + math.cos(math.pi * step / steps))
            logits = pad_sequence(mapper([own.seen for own in batch]), batch_first=True)  # [P, N]
            where = BoxBatch.of(batch)
            losses = [coverage_loss(logits, where, ratio, enough) for ratio in retention_ratios]
            loss = torch.stack(losses).mean()
            if share_weight > 0:
                loss = loss + share_weight * share_loss(logits, where)
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
    add_retention_ratios(parser, default=(0.5, 0.25, 0.1))
    parser.add_argument("--network", choices=_NETWORKS, default="question", help="network")
    parser.add_argument("--epochs", type=positive, default=4, help="passes over the questions")
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
    examples = list(read_examples(model, processor, track(data, "questions"), inputs))
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
