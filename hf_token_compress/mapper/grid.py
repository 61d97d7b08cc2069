"""The network of this library: residual blocks on the grids of the images and videos."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import check_number, check_type
from .config import MAX_CHANNELS, MAX_LAYERS
from .inputs import MapperInput, standardized_channels


class GridNetwork(nn.Module):
    """A small residual network over each head, the neighbours of a token, and the whole prompt.

    Its input has both statistics of every attention head, because heads look for different things:
    first the mean attention of each head, then the highest share of each head, both relative to
    their mean over the tokens. The channels of `MapperInput.standardized` follow.
    Each block mixes a token with its neighbours on the grid (in its frame, the frame before and the
    frame after), then the channels of the token, then the token with a summary of all visual tokens
    of the prompt. Positions enter only through the grids, so any number of visual tokens fits.

    Args:
        heads: Attention heads of the model.
        inputs: Groups of input channels, from "attention", "text" and "embedding".
        channels: Width, 1 to 4096.
        blocks: Blocks, 0 to 1000.
        start_from_attention: Add the logits to the log of the mean attention and initialise them to
            zero, so that the untrained network predicts the attention itself; for few samples.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        *,
        heads: int,
        inputs: Sequence[str] = ("attention",),
        channels: int = 32,
        blocks: int = 4,
        start_from_attention: bool = False,
    ) -> None:
        super().__init__()
        of = "of the mapper network grid"
        check_number(f"channels {of}", channels, f"[1, {MAX_CHANNELS}]", whole=True)
        check_number(f"blocks {of}", blocks, f"[0, {MAX_LAYERS}]", whole=True)
        check_type(f"start_from_attention {of}", start_from_attention, bool)
        self.start_from_attention = start_from_attention
        self.inputs = tuple(inputs)
        width = 2 * heads if "attention" in inputs else 0
        self.input = nn.Linear(width + standardized_channels(inputs), channels)
        stack = [GridBlock(channels) for _ in range(blocks)]
        self.blocks = nn.ModuleList(stack)
        self.output = nn.Linear(channels, 1)
        # Freeze what adds one number to all logits of a prompt. The softmax over its visual tokens
        # removes that number, so the gradients are only rounding errors, and Adam would turn them
        # into steps of normal size.
        for last in stack[-1:]:
            last.contract.bias.requires_grad_(False)
            last.whole.requires_grad_(False)
        self.output.bias.requires_grad_(False)
        if start_from_attention:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, inputs: Sequence[MapperInput]) -> list[Tensor]:
        """Logits of the visual tokens of each of P prompts, float32 [N]; N may differ."""
        counts = [item.count for item in inputs]
        signal = torch.cat([self._signal(item) for item in inputs])  # [T, C]
        canvas = Canvas(inputs, signal.device)
        hidden = self.input(signal)  # [T, channels]
        for block in self.blocks:
            hidden = block(hidden, canvas)  # [T, channels]
        logits = self.output(hidden).squeeze(-1)  # [T]
        if self.start_from_attention:
            logits = logits + torch.cat([item.log_mean_attention for item in inputs])
        return list(logits.split(counts))

    def _signal(self, item: MapperInput) -> Tensor:
        """Input channels of each visual token, float32 [N, C]."""
        channels = item.standardized(self.inputs)
        if "attention" in self.inputs:
            attention = item.attention.float().flatten(0, 1)  # [2 * heads, N]
            channels.insert(0, attention - attention.mean(dim=-1, keepdim=True))
        return torch.cat(channels).T  # [N, C]


class Canvas:
    """The grids of a batch of prompts, over all T visual tokens in one sequence without padding.

    Args:
        inputs: The P prompts.
        device: Device of the indices.
    """

    def __init__(self, inputs: Sequence[MapperInput], device: torch.device) -> None:
        self.counts = [item.count for item in inputs]
        lengths = torch.tensor(self.counts, device=device)  # [P]
        samples = torch.arange(len(inputs), device=device)  # [P]
        self.sample = torch.repeat_interleave(samples, lengths)  # [T]
        # Number the tokens of all grids in the joined sequence.
        grids: list[Tensor] = []
        start = 0
        for item in inputs:
            grids.extend(start + grid for grid in item.grids)
            start += item.count
        # Pad the grids to one size. Cells outside a grid point to one token past the last.
        longest = [max((grid.shape[axis] for grid in grids), default=0) for axis in range(3)]
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
        result = torch.zeros_like(padded)  # [T + 1, C]
        result = result.index_put((self.cells.flatten(),), mixed.flatten(0, 3))
        return result[:-1]  # [T, C]

    def summary(self, hidden: Tensor) -> Tensor:
        """Mean and maximum over the tokens of each prompt: [T, C] → [P, 2 * C]."""
        parts = hidden.split(self.counts)
        return torch.stack([torch.cat([part.mean(dim=0), part.amax(dim=0)]) for part in parts])


class GridBlock(nn.Module):
    """A residual block: neighbours and channels, then the whole prompt.

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
        mixed = self.norm(hidden + canvas.convolve(self.neighbours, hidden))  # [T, C]
        hidden = hidden + self.contract(nn.functional.gelu(self.expand(mixed)))  # [T, C]
        return hidden + self.whole(canvas.summary(hidden))[canvas.sample]  # [T, C]
