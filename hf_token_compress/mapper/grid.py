"""This library's network: every head by itself, on the grids of the images and videos."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import check_count
from .inputs import STATISTICS, MapperInput
from .untrained import leave_untrained


class GridNetwork(nn.Module):
    """A small residual network over visual tokens that sees heads, neighbours and the whole.

    Beside the mean over instruction rows it sees the highest share that one row gives each token,
    and it sees every attention head by itself: heads differ in what they look for. Each block mixes
    a token with its neighbours on its grid (above, below, left, right, in the frame before and
    after) and with a summary of all visual tokens of the prompt, and its channels with each other.
    Everything but the grids is free of position, so that it takes any number of visual tokens.

    Args:
        heads: Attention heads of the model.
        channels: Width, at least 1.
        blocks: Blocks, at least 0.
        start_from_attention: Predict at first the attention itself, averaged over rows and heads,
            and learn what to add: for few samples.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is too small.
    """

    def __init__(
        self,
        *,
        heads: int,
        channels: int = 32,
        blocks: int = 4,
        start_from_attention: bool = False,
    ) -> None:
        super().__init__()
        check_count("channels of the mapper network grid", channels, at_least=1)
        check_count("blocks of the mapper network grid", blocks, at_least=0)
        if not isinstance(start_from_attention, bool):
            raise TypeError(
                "start_from_attention of the mapper network grid must be true or false, not "
                f"{type(start_from_attention).__name__}."
            )
        self.start_from_attention = start_from_attention
        self.input = nn.Linear(STATISTICS * heads, channels)
        stack = [GridBlock(channels) for _ in range(blocks)]
        self.blocks = nn.ModuleList(stack)
        self.output = nn.Linear(channels, 1)
        for last in stack[-1:]:
            leave_untrained(last.contract.bias, *last.whole.parameters())
        leave_untrained(self.output.bias)
        if start_from_attention:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, inputs: Sequence[MapperInput]) -> list[Tensor]:
        """A logit per visual token of each prompt: float32 [N] each."""
        counts = [item.count for item in inputs]
        signal = torch.cat([self._signal(item.attention) for item in inputs])  # [T, 2 * heads]
        canvas = Canvas(inputs, signal.device)
        hidden = self.input(signal)  # [T, channels]
        for block in self.blocks:
            hidden = block(hidden, canvas)
        logits = self.output(hidden).squeeze(-1)  # [T]
        if self.start_from_attention:
            logits = logits + torch.cat([item.log_mean_attention for item in inputs])
        return list(logits.split(counts))

    def _signal(self, attention: Tensor) -> Tensor:
        """[2, heads, N] → [N, 2 * heads], how each head differs from its mean over the tokens."""
        signal = attention.float().flatten(0, 1)
        return (signal - signal.mean(dim=-1, keepdim=True)).T


class Canvas:
    """Where the visual tokens of a batch of prompts lie.

    The tokens of all prompts follow each other without padding, T in all.

    Args:
        inputs: The prompts.
        device: Where to put it.
    """

    def __init__(self, inputs: Sequence[MapperInput], device: torch.device) -> None:
        self.counts = [item.count for item in inputs]
        lengths = torch.tensor(self.counts, device=device)
        self.prompt = torch.repeat_interleave(torch.arange(len(inputs), device=device), lengths)
        grids: list[Tensor] = []
        start = 0
        for item in inputs:
            grids.extend(start + grid for grid in item.grids)
            start += item.count
        longest = [max((grid.shape[axis] for grid in grids), default=0) for axis in range(3)]
        # Cells outside a grid read, and write, one token past the last.
        cells = torch.full((len(grids), *longest), start, dtype=torch.int64, device=device)
        for number, grid in enumerate(grids):
            frames, rows, columns = grid.shape
            cells[number, :frames, :rows, :columns] = grid.to(device)
        self.cells = cells  # [G, frames, rows, columns]

    def convolve(self, convolution: nn.Module, hidden: Tensor) -> Tensor:
        """Apply a 3-D convolution on every grid: [T, C] → [T, C]; zero for tokens on no grid."""
        padded = torch.cat([hidden, hidden.new_zeros(1, hidden.shape[1])])  # [T + 1, C]
        if self.cells.numel() == 0:
            return torch.zeros_like(hidden)
        grids = padded[self.cells].permute(0, 4, 1, 2, 3)  # [G, C, frames, rows, columns]
        mixed = convolution(grids).permute(0, 2, 3, 4, 1)  # [G, frames, rows, columns, C]
        result = torch.zeros_like(padded)
        result = result.index_put((self.cells.flatten(),), mixed.flatten(0, 3))
        return result[:-1]

    def summary(self, hidden: Tensor) -> Tensor:
        """Mean and maximum over the tokens of each prompt: [T, C] → [P, 2 C]."""
        parts = hidden.split(self.counts)
        return torch.stack([torch.cat([part.mean(dim=0), part.amax(dim=0)]) for part in parts])


class GridBlock(nn.Module):
    """Neighbours, then channels, then the whole prompt; all added to what comes in.

    Args:
        channels: Width.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.neighbours = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.contract = nn.Linear(2 * channels, channels)
        self.whole = nn.Linear(2 * channels, channels)

    def forward(self, hidden: Tensor, canvas: Canvas) -> Tensor:
        """[T, C] → [T, C]."""
        mixed = self.norm(hidden + canvas.convolve(self.neighbours, hidden))
        hidden = hidden + self.contract(nn.functional.gelu(self.expand(mixed)))
        return hidden + self.whole(canvas.summary(hidden))[canvas.prompt]
