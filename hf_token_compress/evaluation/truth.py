"""The oracle: keep first the visual tokens that the answer depends on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from ..data.sample import Sample
from ..data.scenes import Box
from ..prompt import MultimodalPrompt, TokenGrid, VisualSpan
from ..scorers import Scorer
from ..scorers.random import RandomScorer


class TruthScorer(Scorer):
    """Scores the visual tokens inside a sample's relevant boxes above all others.

    The others get random scores, so that what is kept beyond the ground truth gives no hint. It
    needs the samples of the batch, one image or video each: set `samples` before every call.
    """

    def __init__(self, seed: int = 0) -> None:
        self.samples: Sequence[Sample] = ()
        self._others = RandomScorer(seed)

    @override
    def score(self, prompt: MultimodalPrompt) -> Tensor:
        if len(self.samples) != len(prompt.visuals):
            raise ValueError(
                f"TruthScorer.samples has {len(self.samples)} samples, but the batch has "
                f"{len(prompt.visuals)} prompts: set it before every call."
            )
        scores = self._others.score(prompt)  # [B, S] in [0, 1)
        for index, (sample, visuals) in enumerate(zip(self.samples, prompt.visuals, strict=True)):
            (visual,) = visuals
            positions = visual.positions.to(scores.device)  # [N]
            scores[index, positions] += true_relevance(sample, visual).to(scores)
        return scores


def has_ground_truth(sample: Sample) -> bool:
    """Whether it is known which part of a sample's one image or video its answer depends on."""
    return (
        sample.relevant_boxes is not None
        and len(sample.visuals) == 1
        and (sample.modality == "image" or len(sample.frames) > 0)
    )


def true_relevance(sample: Sample, visual: VisualSpan) -> Tensor:
    """1 for the visual tokens inside a sample's relevant boxes, else 0.

    Args:
        sample: A question about one image or video, with ground truth.
        visual: That image or video in a prompt, of N visual tokens.

    Returns:
        float32 [N] on the CPU; 0 for tokens that lie on no grid.
    """
    relevance = torch.zeros(len(visual.positions))
    for grid in visual.grids:
        for frame, tokens in enumerate(grid.index):
            boxes = _boxes_of_frame(sample, frame, len(grid.index))
            inside = tokens_in_boxes(boxes, sample.image.size, grid)
            relevance[tokens.flatten()] = inside.float()
    return relevance


def tokens_in_boxes(boxes: Sequence[Box], image_size: tuple[int, int], grid: TokenGrid) -> Tensor:
    """Visual tokens whose centre on the image lies in one of the boxes.

    The last tokens of a grid may reach over the edge of the image.

    Args:
        boxes: (left, top, right, bottom) in pixels of the image.
        image_size: (width, height) of the image.
        grid: A grid over that image.

    Returns:
        bool [rows * columns], row-major, of any frame.
    """
    width, height = image_size
    _, rows, columns = grid.shape
    from_left, from_top, to_right, to_bottom = grid.area
    x = width * _centres(from_left, to_right, columns)
    y = height * _centres(from_top, to_bottom, rows)
    inside = torch.zeros(rows, columns, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        in_rows = (y >= top) & (y < bottom)
        in_columns = (x >= left) & (x < right)
        inside |= in_rows[:, None] & in_columns
    return inside.flatten()


def _centres(start: float, end: float, count: int) -> Tensor:
    """float32 [count]: the centres of equal parts from start to end, cut at the edges 0 and 1."""
    edges = torch.linspace(start, end, count + 1).clamp(0.0, 1.0)
    return (edges[:-1] + edges[1:]) / 2


def _boxes_of_frame(sample: Sample, frame: int, frames: int) -> tuple[Box, ...]:
    """Relevant boxes of one of the model's frames, which may join several of the video's."""
    boxes = sample.relevant_boxes or ()
    if not sample.frames:
        return boxes
    joined = -(-len(sample.frames) // frames)
    pairs = zip(boxes, sample.relevant_frames, strict=True)
    return tuple(box for box, number in pairs if number // joined == frame)
