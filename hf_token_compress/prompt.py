"""A multimodal prompt as layer 0 of the language model sees it, and where its images lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from typing_extensions import Self

from .config import MODALITIES as MODALITIES
from .config import InstructionScope
from .config import Modality as Modality
from .device_copy import to_device


@dataclass(frozen=True)
class TokenGrid:
    """Visual tokens on a grid over an image, or over the frames of a video.

    Attributes:
        index: int64 [frames, rows, columns] on the CPU, the token of each cell, counted within
            its image or video; row 0 is the top, column 0 the left.
        area: Left, top, right and bottom of the grid as shares of the image's width and height. A
            grid over a padded image reaches beyond (0, 0, 1, 1).
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
    """Where the visual tokens of one image or video lie on it.

    Attributes:
        count: N, its visual tokens.
        grids: Grids over it, such as a coarse one over the whole image and a fine one over its
            tiles. A token lies on one grid, or on none if it only separates others, as newline
            tokens do; without any grid, nothing is known of places.
    """

    count: int
    grids: tuple[TokenGrid, ...]

    @classmethod
    def row_major(cls, frames: int, rows: int, columns: int) -> VisualLayout:
        """One grid, filled frame by frame and row by row."""
        count = frames * rows * columns
        return cls(count, (TokenGrid(torch.arange(count).view(frames, rows, columns)),))


@dataclass(frozen=True)
class VisualSpan:
    """One image or video of one prompt.

    Attributes:
        modality: "image" or "video".
        positions: int64 [N] on the CPU, positions of its visual tokens in the caller's sequence,
            ascending.
        grids: The grids over it, as in `VisualLayout`.
    """

    modality: Modality
    positions: Tensor
    grids: tuple[TokenGrid, ...]


@dataclass(frozen=True)
class HostMasks:
    """Masks of a batch of prompts on the CPU, where the host reads them without waiting.

    Attributes:
        attention: bool [B, S], False on padding.
        visual: bool [B, S], True on visual tokens.
        instruction: bool [B, S], True on instruction tokens.
    """

    attention: Tensor
    visual: Tensor
    instruction: Tensor

    @property
    def query(self) -> Tensor:
        """Instruction tokens that are no padding, bool [B, S]."""
        return self.instruction & self.attention


@dataclass(frozen=True)
class QueryTokens:
    """Tokens whose queries a scoring layer has, sample by sample.

    Attributes:
        sample: int64 [Q], ascending.
        position: int64 [Q], ascending in each sample.
        counts: How many there are of each sample.
    """

    sample: Tensor
    position: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, mask: Tensor) -> QueryTokens:
        """The tokens that a mask on the CPU marks, bool [B, S], with indices there."""
        sample, position = mask.nonzero(as_tuple=True)  # [Q] each
        return cls(sample, position, tuple(mask.sum(dim=1).tolist()))

    def to(self, device: torch.device) -> QueryTokens:
        """The same tokens, with indices on a device."""
        if self.sample.device == device:
            return self
        sample, position = to_device([self.sample.cpu(), self.position.cpu()], device)
        return QueryTokens(sample, position, self.counts)


@dataclass(frozen=True)
class MultimodalPrompt:
    """A batch of B prompts of S tokens, as layer 0 would see them uncompressed.

    Attributes:
        input_ids: int64 [B, S].
        position_ids: int64 [A, B, S] or [B, S], as the language model takes them (A axes).
        attention_mask: bool [B, S], False on padding.
        visual_mask: bool [B, S], True on visual tokens.
        instruction_mask: bool [B, S], True on instruction tokens.
        visuals: For each prompt, its images and videos in order of appearance.
        embed: Computes `inputs_embeds`.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    visual_mask: Tensor
    instruction_mask: Tensor
    visuals: tuple[tuple[VisualSpan, ...], ...]
    embed: Callable[[], Tensor]

    @cached_property
    def inputs_embeds(self) -> Tensor:
        """Float [B, S, D], visual features in place of their placeholders."""
        return self.embed()

    @cached_property
    def query_mask(self) -> Tensor:
        """Instruction tokens that are no padding, bool [B, S]."""
        return self.instruction_mask & self.attention_mask

    @cached_property
    def on_host(self) -> HostMasks:
        """The masks on the CPU: what `known_on_host` noted, or else read from the device."""
        return HostMasks(
            self.attention_mask.cpu(), self.visual_mask.cpu(), self.instruction_mask.cpu()
        )

    def known_on_host(
        self, masks: HostMasks, query_mask: Tensor | None = None, queries: QueryTokens | None = None
    ) -> Self:
        """The same prompt, with what is known of it noted, so that nobody waits to read it.

        Args:
            masks: Its masks on the CPU.
            query_mask: `query_mask`, if it is on the device already.
            queries: The tokens that this marks.
        """
        vars(self)["on_host"] = masks
        # On a CPU, a scorer may write to the masks.
        if query_mask is not None and query_mask.device.type != "cpu":
            vars(self).update(query_mask=query_mask, _queries=queries)
        return self

    def query_tokens(self, mask: Tensor, device: torch.device) -> QueryTokens:
        """The tokens that a mask marks, bool [B, S], with indices on a device.

        The host waits only for a mask on a device that is not `query_mask`.
        """
        known: QueryTokens | None = vars(self).get("_queries")
        if known is None or mask is not self.query_mask:
            known = QueryTokens.of(mask.cpu())
        return known.to(device)

    def check_instruction(self) -> None:
        """Raise `ValueError` if a prompt has visual tokens, but no instruction token."""
        masks = self.on_host
        unasked = masks.visual.any(dim=1) & ~masks.query.any(dim=1)  # [B]
        if unasked.any():
            raise ValueError(
                f"Prompt {int(unasked.nonzero()[0])} has visual tokens, but no instruction token: "
                "mark at least one of its tokens in instruction_mask, or choose a scorer that does "
                "not read the instruction, such as 'uniform'."
            )


def find_visual_spans(
    placeholder_mask: Tensor,
    layouts: Sequence[VisualLayout],
    modality: Modality,
) -> tuple[tuple[VisualSpan, ...], ...]:
    """Find the placeholders of each image or video of a batch.

    Args:
        placeholder_mask: bool [B, S], True on the placeholders of this modality.
        layouts: One per image or video, in the order of the prompts.
        modality: "image" or "video".

    Returns:
        For each prompt, its spans in order.

    Raises:
        ValueError: The placeholders of a prompt do not match whole images or videos.
    """
    spans: list[tuple[VisualSpan, ...]] = []
    remaining = list(reversed(layouts))
    for sample, mask in enumerate(placeholder_mask):
        positions = mask.nonzero().flatten().cpu()  # [placeholders of this prompt]
        own_spans: list[VisualSpan] = []
        start = 0
        # Some models have an empty entry for a prompt without images.
        while remaining and (start < len(positions) or remaining[-1].count == 0):
            layout = remaining.pop()
            end = start + layout.count
            own_spans.append(VisualSpan(modality, positions[start:end], layout.grids))
            start = end
        if start != len(positions):
            raise ValueError(
                f"Prompt {sample} has {len(positions)} {modality} placeholders, but its "
                f"{modality}s have {start} visual tokens: pass input_ids and {modality}s of the "
                "same processor call, untruncated."
            )
        spans.append(tuple(own_spans))
    if remaining:
        raise ValueError(
            f"{len(remaining)} of {len(layouts)} {modality}s have no placeholders in input_ids: "
            f"pass input_ids and {modality}s of the same processor call, untruncated."
        )
    return tuple(spans)


def find_instruction_tokens(
    text_mask: Tensor,
    visual_mask: Tensor,
    turn_end_mask: Tensor,
    scope: InstructionScope,
) -> tuple[Tensor, bool]:
    """Mark the instruction tokens: the text that asks the question.

    Text before the last visual token cannot attend to it, so only text after it counts unless
    `scope` is "all_text". A turn is closed by a turn-end token (the model's end-of-sequence
    tokens). If nothing is left, the search widens: first to all text after the last visual token,
    then to the last token of the prompt. Every prompt with a token gets at least one.

    Args:
        text_mask: bool [B, S], True on text that may be instruction: no padding, no visual token,
            no token that only marks structure.
        visual_mask: bool [B, S], True on visual tokens.
        turn_end_mask: bool [B, S], True on tokens that close a turn.
        scope: "last_turn", "after_visual" or "all_text".

    Returns:
        The instruction tokens, bool [B, S], and whether every prompt with visual tokens has a
        question after them: text of a closed turn, or any text if no turn is closed.
    """
    all_asked = True
    positions = torch.arange(text_mask.shape[1], device=text_mask.device)
    result = torch.zeros_like(text_mask)
    parts = zip(text_mask, visual_mask, turn_end_mask, strict=True)
    for sample, (text, visual, turn_end) in enumerate(parts):
        last_visual = _last_position(visual)
        after = positions > last_visual
        ends = (turn_end & after).nonzero().flatten().tolist()
        turns = [
            text & after & (positions > start) & (positions < end)
            for start, end in pairwise([-1, *ends])
        ]
        question = _first_found(turns[::-1] or [text & after])
        all_asked = all_asked and (last_visual < 0 or question is not None)
        # From the wanted tokens to wider searches: the first that finds any counts.
        found = question if scope == "last_turn" else None
        if found is None:
            found = _first_found([text if scope == "all_text" else text & after])
        if found is None:
            found = positions == _last_position(text | visual | turn_end)
        result[sample] = found
    return result, all_asked


def _first_found(searches: Iterable[Tensor]) -> Tensor | None:
    """The first mask that marks anything."""
    return next((tokens for tokens in searches if tokens.any()), None)


def _last_position(mask: Tensor) -> int:
    """Position of the last True, or -1."""
    positions = mask.nonzero().flatten()
    return int(positions[-1]) if len(positions) else -1
