"""Mappers that are trained for the set that is kept."""

from __future__ import annotations

import math

import pytest
import torch

from hf_token_compress import load_tiny
from hf_token_compress.compression.identity import identify
from hf_token_compress.evaluation import scene_samples
from hf_token_compress.evaluation.truth import true_relevance
from hf_token_compress.mapper import MapperConfig, MapperInput, RelevanceMapper
from hf_token_compress.prompt import TokenGrid, VisualSpan
from lab.benchmarks.set_training import (
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
    logits = torch.randn(12, dtype=torch.float64, requires_grad=True)
    assert soft_top_k(logits, 5).sum().item() == pytest.approx(5.0)
    assert torch.autograd.gradcheck(lambda given: soft_top_k(given, 5), (logits,))


def test_a_soft_top_k_of_distant_logits_is_the_top_k() -> None:
    logits = 50.0 * torch.randperm(12).double()
    assert soft_top_k(logits, 5).gt(0.5).equal(logits >= 50.0 * 7)


def test_the_loss_counts_what_is_kept_inside_each_box() -> None:
    """Ten tokens, the first is structure; of the others the two best fill a budget of three."""
    boxes = torch.zeros(2, 10)
    boxes[0, 1:4] = 1.0
    boxes[1, [0, 4]] = 1.0
    logits = torch.full((10,), -100.0)
    logits[[1, 2]] = 100.0
    loss = coverage_loss(
        logits, _example(boxes, torch.tensor([0])), 0.3, enough=2.0, structure_share=0.5
    )
    expected = (-math.log(1 - math.exp(-1.0) + 0.02) - math.log(0.02)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_shares_counts_boxes_and_their_tokens() -> None:
    """Shares of 1/2, 1/4 and 1/4; the second box has no token."""
    boxes = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    logits = torch.tensor([2.0, 1.0, 1.0]).log()
    loss = share_loss(logits, _example(boxes, torch.tensor([])))
    of_box, of_tokens = -math.log(3 / 4), (math.log(2) + math.log(4)) / 2
    assert float(loss) == pytest.approx((of_box + of_tokens) / 2)


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
