"""The inputs of several prompts as a network reads them: padded, with their grids on one canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..device_copy import to_device
from ..padding import past_end
from .inputs import INPUTS, WORDS, MapperInput

_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class BatchIndex:
    """Which tokens and cells of a batch of P prompts of at most N visual tokens there are.

    Attributes:
        counts: Visual tokens of each prompt.
        lengths: float32 [P, 1, 1], the same on the device.
        missing: bool [P, 1, N], True on padding; None if there is none.
        canvas: Grids, frames, rows and columns of the canvas, [G, frames, rows, columns].
        tokens: int64 [cells], which of all P * N tokens covers each cell.
        uncovered: bool [cells, 1], True on cells that none covers; None if there are none of these.
        cells: int64 [P * N], on which cell each token lies.
        loose: bool [P * N, 1], True on tokens on no grid; None if there are none of these.
        in_order: Whether the cells are the tokens in their order.
    """

    counts: tuple[int, ...]
    lengths: Tensor
    missing: Tensor | None
    canvas: tuple[int, ...]
    tokens: Tensor
    uncovered: Tensor | None
    cells: Tensor
    loose: Tensor | None
    in_order: bool

    @classmethod
    def of(
        cls,
        counts: Sequence[int],
        grids: Sequence[Sequence[Tensor]],
        device: torch.device,
    ) -> BatchIndex:
        """The index of prompts, made on the host and copied to a device at once.

        Args:
            counts: Visual tokens of each prompt.
            grids: For each prompt, its grids as in `MapperInput`.
            device: Where the tensors go.
        """
        longest = max(counts, default=0)
        missing = past_end(counts).unsqueeze(1)  # [P, 1, N]
        # Number the tokens of all grids, and pad the grids to one size.
        numbered = [
            number * longest + grid.cpu() for number, own in enumerate(grids) for grid in own
        ]
        size = [max((grid.shape[axis] for grid in numbered), default=0) for axis in range(3)]
        tokens = torch.full((len(numbered), *size), -1)  # [G, frames, rows, columns]
        for canvas, grid in zip(tokens, numbered, strict=True):
            frames, rows, columns = grid.shape
            canvas[:frames, :rows, :columns] = grid
        covered = tokens.flatten().ge(0).nonzero().flatten()
        cells = torch.full((len(counts) * longest,), -1)  # [P * N]
        cells[tokens.flatten()[covered]] = covered
        parts = (
            torch.tensor(counts, dtype=torch.float32)[:, None, None],
            missing,
            tokens.flatten().clamp(min=0),
            tokens.flatten().lt(0).unsqueeze(1),
            cells.clamp(min=0),
            cells.lt(0).unsqueeze(1),
        )
        lengths, on_device, own_tokens, uncovered, own_cells, loose = to_device(parts, device)
        return cls(
            counts=tuple(counts),
            lengths=lengths,
            missing=on_device if bool(missing.any()) else None,
            canvas=tuple(tokens.shape),
            tokens=own_tokens,
            uncovered=uncovered if len(covered) < tokens.numel() else None,
            cells=own_cells,
            loose=loose if len(covered) < len(cells) else None,
            in_order=torch.equal(cells, torch.arange(tokens.numel())),
        )

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the tokens of each prompt, [P, C, N] → [P, C, 1]."""
        if self.missing is None:
            return values.mean(dim=-1, keepdim=True)
        return values.masked_fill(self.missing, 0.0).sum(dim=-1, keepdim=True) / self.lengths

    def log_shares(self, logits: Tensor) -> Tensor:
        """Logarithm of the softmax over the tokens of each prompt, [P, C, N]; -inf on padding."""
        if self.missing is not None:
            logits = logits.masked_fill(self.missing, -torch.inf)
        return logits.log_softmax(dim=-1)

    def shares(self, logits: Tensor) -> Tensor:
        """Softmax over the tokens of each prompt, [P, C, N]; 0 on padding."""
        if self.missing is not None:
            logits = logits.masked_fill(self.missing, -torch.inf)
        return logits.softmax(dim=-1)

    def summary(self, hidden: Tensor) -> Tensor:
        """Mean and maximum over the tokens of each prompt: [P, N, C] → [P, 2 * C]."""
        values = hidden.transpose(1, 2)  # [P, C, N]
        mean = self.mean(values).squeeze(-1)  # [P, C]
        if self.missing is not None:
            values = values.masked_fill(self.missing, -torch.inf)
        return torch.cat([mean, values.amax(dim=-1)], dim=-1)

    def convolve(self, convolution: nn.Module, hidden: Tensor) -> Tensor:
        """Apply a 3-D convolution on every grid: [P, N, C] → [P, N, C]; 0 for tokens on no grid."""
        if len(self.tokens) == 0:
            return torch.zeros_like(hidden)
        grids = hidden.flatten(0, 1)  # [P * N, C]
        if not self.in_order:
            grids = grids.index_select(0, self.tokens)  # [cells, C]
        if self.uncovered is not None:
            # Not by a product: the token that stands in may be NaN, and of another prompt.
            grids = grids.masked_fill(self.uncovered, 0.0)
        grids = grids.unflatten(0, self.canvas).permute(0, 4, 1, 2, 3)
        mixed = convolution(grids).permute(0, 2, 3, 4, 1)  # [G, frames, rows, columns, C]
        result = mixed.flatten(0, 3)  # [cells, C]
        if not self.in_order:
            result = result.index_select(0, self.cells)  # [P * N, C]
        if self.loose is not None:
            result = result.masked_fill(self.loose, 0.0)
        return result.view_as(hidden)


@dataclass(frozen=True)
class MapperBatch:
    """What mappers see of P prompts, padded to N visual tokens.

    Attributes:
        index: Which tokens there are.
        attention: float32 [P, 2, heads, N], as in `MapperInput`; anything finite on padding.
        text, embedding: float32 [P, 2, N], as in `MapperInput`.
        tokens: float [P, N, D], as in `MapperInput`; anything finite on padding.
        words: float [P, R, D], as in `MapperInput`; the same.
        unasked: bool [P, R], True on the padding of `words`.
    """

    index: BatchIndex
    attention: Tensor
    text: Tensor | None = None
    embedding: Tensor | None = None
    tokens: Tensor | None = None
    words: Tensor | None = None
    unasked: Tensor | None = None

    @classmethod
    def of(cls, inputs: Sequence[MapperInput]) -> MapperBatch:
        """The inputs of prompts one after another, on the device of their attention."""
        index = BatchIndex.of(
            [item.count for item in inputs],
            [item.grids for item in inputs],
            inputs[0].attention.device,
        )

        def padded(name: str) -> Tensor | None:
            values: list[Tensor] = [getattr(item, name) for item in inputs]
            if any(own is None for own in values):
                return None
            tokens = [own.float().movedim(-1, 0) for own in values]  # [own N, ...] each
            return pad_sequence(tokens, batch_first=True).movedim(1, -1)  # [P, ..., N]

        attention = padded("attention")
        assert attention is not None
        tokens = words = unasked = None
        shown = [item.tokens for item in inputs if item.tokens is not None]
        asked = [item.words for item in inputs if item.words is not None]
        if len(shown) == len(asked) == len(inputs):
            tokens = pad_sequence(shown, batch_first=True)  # [P, N, D]
            words = pad_sequence(asked, batch_first=True)  # [P, R, D]
            (unasked,) = to_device([past_end([*map(len, asked)])], words.device)
        return cls(index, attention, padded("text"), padded("embedding"), tokens, words, unasked)

    def embeddings(self) -> tuple[Tensor, Tensor, Tensor]:
        """`tokens` and `words` in float32, and `unasked`.

        Raises:
            ValueError: They are missing.
        """
        if self.tokens is None or self.words is None or self.unasked is None:
            raise ValueError(
                f"The mapper reads {WORDS!r}, but its MapperInput has none: pass tokens= and "
                "words=."
            )
        return self.tokens.float(), self.words.float(), self.unasked

    @property
    def log_mean_attention(self) -> Tensor:
        """Logarithm of the mean attention over instruction tokens and heads, float32 [P, N]."""
        return self.attention[:, 0].exp().mean(dim=1).log()

    def standardized(self, inputs: Sequence[str]) -> list[Tensor]:
        """The named groups but attention, in the order of `INPUTS`: at most one float32 [P, C, N].

        Each channel has mean 0 and standard deviation 1 over the tokens of a prompt; one that
        hardly varies stays near 0.

        Raises:
            ValueError: A group is missing.
        """
        channels: list[Tensor] = []
        for name in INPUTS[1:]:
            if name not in inputs:
                continue
            values: Tensor | None = getattr(self, name)
            if values is None:
                raise ValueError(
                    f"The mapper reads {name!r}, but its MapperInput has none: pass {name}=."
                )
            channels.append(values)
        if not channels:
            return []
        values = torch.cat(channels, dim=1)  # [P, C, N]
        centred = values - self.index.mean(values)
        deviation = self.index.mean(centred.square()).sqrt()  # [P, C, 1]
        return [centred / deviation.clamp(min=_SMALLEST_DEVIATION)]
