"""Mappers that are trained for the set that is kept."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from hf_token_compress import load_tiny
from hf_token_compress.compression.identity import identify
from hf_token_compress.evaluation import scene_samples
from hf_token_compress.evaluation.truth import true_relevance
from hf_token_compress.mapper import MapperConfig, MapperInput, RelevanceMapper
from hf_token_compress.mapper.inputs import INPUTS, WORDS
from hf_token_compress.prompt import TokenGrid, VisualSpan
from lab.benchmarks.set_training import (
    BoxBatch,
    Example,
    box_weights,
    coverage_loss,
    read_examples,
    share_loss,
    soft_top_k,
    train_for_sets,
)


def _example(boxes: torch.Tensor, structure: torch.Tensor) -> Example:
    return Example(MapperInput(torch.zeros(2, 1, boxes.shape[1]), ()), boxes, structure)


def test_a_soft_top_k_sums_to_its_count_and_its_gradient_is_right() -> None:
    logits = torch.randn(2, 12, dtype=torch.float64)
    logits[1, 9:] = -torch.inf
    logits.requires_grad_()
    counts = torch.tensor([5, 3])
    assert soft_top_k(logits, counts).sum(dim=1).tolist() == pytest.approx([5.0, 3.0])
    free = logits.detach()[:, :9].requires_grad_()
    assert torch.autograd.gradcheck(lambda given: soft_top_k(given, counts), (free,))


def test_a_soft_top_k_of_distant_logits_is_the_top_k() -> None:
    logits = 50.0 * torch.randperm(12).double()[None]
    assert soft_top_k(logits, torch.tensor([5])).gt(0.5).equal(logits >= 50.0 * 7)


def test_the_loss_counts_what_is_kept_inside_each_box() -> None:
    """Ten tokens, the first is structure; of the others the two best fill a budget of three."""
    boxes = torch.zeros(2, 10)
    boxes[0, 1:4] = 1.0
    boxes[1, [0, 4]] = 1.0
    logits = torch.full((10,), -100.0)
    logits[[1, 2]] = 100.0
    batch = BoxBatch.of([_example(boxes, torch.tensor([0]))])
    loss = coverage_loss(logits[None], batch, 0.3, enough=2.0, structure_share=0.5)
    expected = (-math.log(1 - math.exp(-1.0) + 0.02) - math.log(0.02)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_shares_counts_boxes_and_their_tokens() -> None:
    """Shares of 1/2, 1/4 and 1/4; the second box has no token."""
    boxes = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    logits = torch.tensor([2.0, 1.0, 1.0]).log()
    loss = share_loss(logits[None], BoxBatch.of([_example(boxes, torch.tensor([]).long())]))
    of_box, of_tokens = -math.log(3 / 4), (math.log(2) + math.log(4)) / 2
    assert float(loss) == pytest.approx((of_box + of_tokens) / 2)


def test_the_losses_of_a_batch_are_the_means_of_those_of_its_questions() -> None:
    """Of other lengths, numbers of boxes, and structure; the last question's box has no token."""
    sizes = ((12, 2, [11]), (20, 3, []), (7, 1, [0, 3]))
    examples = [
        _example(torch.rand(boxes, tokens).gt(0.5).float(), torch.tensor(structure).long())
        for tokens, boxes, structure in sizes
    ]
    examples[2].boxes.zero_()
    logits = torch.randn(3, 20, requires_grad=True)

    def losses(rows: torch.Tensor, given: list[Example]) -> torch.Tensor:
        batch = BoxBatch.of(given)
        return coverage_loss(rows, batch, 0.5, enough=1.0) + share_loss(rows, batch)

    whole = losses(logits, examples)
    alone = [
        losses(row[None, : own.seen.count], [own])
        for row, own in zip(logits, examples, strict=True)
    ]
    torch.testing.assert_close(whole, torch.stack(alone).mean())
    (gradient,) = torch.autograd.grad(whole, logits)
    (expected,) = torch.autograd.grad(torch.stack(alone).mean(), logits)
    torch.testing.assert_close(gradient, expected)


def test_questions_about_one_image_are_read_as_each_alone() -> None:
    model, processor = load_tiny("llava-onevision")
    first, second = scene_samples(["colour"], 2, split="mapper")
    other = dataclasses.replace(first, question="Which colour is in the first row?")
    together = list(read_examples(model, processor, [first, other, second], (*INPUTS, WORDS)))
    for sample, own in zip([first, other, second], together, strict=True):
        (alone,) = read_examples(model, processor, [sample], (*INPUTS, WORDS))
        torch.testing.assert_close(own.boxes, alone.boxes)
        torch.testing.assert_close(own.structure, alone.structure)
        for name in ("attention", "text", "embedding", "tokens", "words"):
            torch.testing.assert_close(getattr(own.seen, name), getattr(alone.seen, name))
    assert together[0].seen.tokens is together[1].seen.tokens
    assert together[0].seen.tokens is not together[2].seen.tokens


def test_boxes_count_on_every_grid() -> None:
    """Where two grids show the same place, the coarser one counts half."""
    (sample,) = scene_samples(["place"], 1, split="mapper")
    coarse, fine = torch.arange(4).view(1, 2, 2), torch.arange(4, 20).view(1, 4, 4)
    visual = VisualSpan("image", torch.arange(20), (TokenGrid(coarse), TokenGrid(fine)))
    weights = box_weights(sample, visual)
    assert weights.amax(dim=0).gt(0).equal(true_relevance(sample, visual) > 0)
    assert weights[:, :4].max() <= 0.5
    assert weights[:, 4:].max() == 1.0


def test_training_covers_more_boxes_of_other_questions() -> None:
    model, processor = load_tiny("qwen2-vl")
    samples = scene_samples(["colour"], 64, split="mapper")
    examples = list(read_examples(model, processor, samples))
    learned, others = examples[:48], examples[48:]
    torch.manual_seed(0)
    mapper = RelevanceMapper(MapperConfig(identify(model), inputs=("attention", "text")))

    def covered() -> int:
        found = 0
        with torch.no_grad():
            for example, logits in zip(others, mapper([own.seen for own in others]), strict=True):
                kept = logits.topk(len(logits) // 10).indices
                found += int((example.boxes[:, kept].sum(dim=1) > 0).all())
        return found

    before = covered()
    history = train_for_sets(mapper, learned, retention_ratios=(0.25, 0.1), enough=2.0, epochs=12)
    assert history[-1] < history[0]
    assert covered() > before
