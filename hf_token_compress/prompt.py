"""What is known of a multimodal prompt before layer 0 of the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .config import InstructionRows

Modality = Literal["image", "video"]


@dataclass(frozen=True)
class TokenGrid:
    """Visual tokens that lie on a grid over an image, or over the frames of a video.

    Attributes:
        index: int64 [frames, rows, columns] on the CPU, which of its visual's tokens covers each
            cell; row 0 is the top, column 0 the left.
        area: What the grid covers of the image: left, top, right and bottom as shares of its
            width and height. A grid over a padded image reaches beyond (0, 0, 1, 1).
    """

    index: Tensor
    area: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, columns) in visual tokens."""
        frames, rows, columns = self.index.shape
        return frames, rows, columns


@dataclass(frozen=True)
class VisualLayout:
    """How the visual tokens of one image or video lie on it.

    Attributes:
        count: N, its visual tokens.
        grids: Grids over it, such as a coarse one over the whole image and a fine one over its
            tiles. A token lies on one grid, or on none where it only separates others.
    """

    count: int
    grids: tuple[TokenGrid, ...]

    @classmethod
    def row_major(cls, frames: int, rows: int, columns: int) -> VisualLayout:
        """One grid whose tokens follow each other frame by frame and row by row."""
        count = frames * rows * columns
        return cls(count, (TokenGrid(torch.arange(count).view(frames, rows, columns)),))


@dataclass(frozen=True)
class VisualSpan:
    """One image or video of one prompt.

    Attributes:
        modality: "image" or "video".
        positions: int64 [N], columns of its visual tokens in the caller's sequence, ascending.
        grids: The grids on which its tokens lie, as in `VisualLayout`.
    """

    modality: Modality
    positions: Tensor
    grids: tuple[TokenGrid, ...]


@dataclass(frozen=True)
class MultimodalPrompt:
    """A batch of B prompts of S tokens, as layer 0 would see them uncompressed.

    Attributes:
        input_ids: int64 [B, S].
        inputs_embeds: float [B, S, D], visual features in place of their placeholders.
        position_ids: int64 [A, B, S] or [B, S], as the language model takes them (A axes).
        attention_mask: bool [B, S], False on padding.
        visual_mask: bool [B, S], True on visual tokens.
        instruction_mask: bool [B, S], True on the rows that ask the question.
        visuals: For each prompt, its images and videos in order of appearance.
    """

    input_ids: Tensor
    inputs_embeds: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    visual_mask: Tensor
    instruction_mask: Tensor
    visuals: tuple[tuple[VisualSpan, ...], ...]


def find_visual_spans(
    placeholder_mask: Tensor,
    layouts: Sequence[VisualLayout],
    modality: Modality,
) -> tuple[tuple[VisualSpan, ...], ...]:
    """Give each image or video of a batch its placeholder columns.

    Args:
        placeholder_mask: bool [B, S], True on the placeholders of this modality.
        layouts: Of each image or video, over the batch.
        modality: "image" or "video".

    Returns:
        For each prompt, its spans in order.

    Raises:
        ValueError: The placeholders of a prompt do not match whole images or videos.
    """
    spans: list[tuple[VisualSpan, ...]] = []
    remaining = list(reversed(layouts))
    for row, mask in enumerate(placeholder_mask):
        columns = mask.nonzero().flatten()  # [placeholders of this prompt]
        row_spans: list[VisualSpan] = []
        start = 0
        while start < len(columns) and remaining:
            layout = remaining.pop()
            own = columns[start : start + layout.count]
            row_spans.append(VisualSpan(modality, own, layout.grids))
            start += layout.count
        if start != len(columns):
            raise ValueError(
                f"Prompt {row} has {len(columns)} {modality} placeholders, but the {modality}s it "
                f"was given have {start} visual tokens: pass the input_ids and the {modality}s of "
                "one and the same processor call, untruncated."
            )
        spans.append(tuple(row_spans))
    if remaining:
        raise ValueError(
            f"{len(remaining)} of {len(layouts)} {modality}s have no placeholders in input_ids: "
            f"pass the input_ids and the {modality}s of one and the same processor call, "
            "untruncated."
        )
    return tuple(spans)


def find_instruction_rows(
    text_mask: Tensor,
    visual_mask: Tensor,
    turn_end_mask: Tensor,
    rows: InstructionRows,
) -> Tensor:
    """Mark the text rows that ask the question.

    A turn is closed by a turn-end token (the model's end-of-sequence tokens). Text before the last
    visual token cannot attend to it, so only text after it counts unless `rows` is "all_text".
    Where that leaves nothing, the search widens: to all text after the last visual token, then to
    the last token of the prompt, so that every prompt has at least one row.

    Args:
        text_mask: bool [B, S], True on text that may be instruction (no padding, no visual token,
            no token that only marks structure).
        visual_mask: bool [B, S], True on visual tokens.
        turn_end_mask: bool [B, S], True on tokens that close a turn.
        rows: "last_turn", "after_visual" or "all_text".

    Returns:
        bool [B, S].
    """
    columns = torch.arange(text_mask.shape[1], device=text_mask.device)
    result = torch.zeros_like(text_mask)
    for row in range(text_mask.shape[0]):
        text = text_mask[row]
        if rows == "all_text" and text.any():
            result[row] = text
            continue
        after = columns > _last_column(visual_mask[row])
        chosen = text & after
        if rows == "last_turn":
            chosen = _last_closed_turn(chosen, turn_end_mask[row] & after, columns)
        if not chosen.any():
            chosen = text & after
        if not chosen.any():
            present = text | visual_mask[row] | turn_end_mask[row]
            chosen = columns == _last_column(present)
        result[row] = chosen
    return result


def _last_closed_turn(text: Tensor, turn_ends: Tensor, columns: Tensor) -> Tensor:
    """Text of the last closed turn that has any; all of `text` where no turn is closed."""
    if not turn_ends.any():
        return text
    ends = turn_ends.nonzero().flatten().tolist()
    starts = [-1, *ends[:-1]]
    for start, end in zip(reversed(starts), reversed(ends), strict=True):
        turn = text & (columns > start) & (columns < end)
        if turn.any():
            return turn
    return text


def _last_column(mask: Tensor) -> int:
    """Column of the last True, or -1."""
    columns = mask.nonzero().flatten()
    return int(columns[-1]) if len(columns) else -1
