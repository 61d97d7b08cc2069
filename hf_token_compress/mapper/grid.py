"""The network of this library: residual blocks on the grids of the images and videos."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import check_number, check_type
from .batch import BatchIndex, MapperBatch
from .config import MAX_CHANNELS, MAX_LAYERS
from .inputs import standardized_channels


class GridNetwork(nn.Module):
    """A small residual network over each head, the neighbours of a token, and the whole prompt.

    Its input has both statistics of every attention head, because heads look for different things:
    first the mean attention of each head, then the highest share of each head, both relative to
    their mean over the tokens. The channels of `MapperBatch.standardized` follow.
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

    def forward(self, batch: MapperBatch) -> Tensor:
        """Logits of the visual tokens of P prompts, float32 [P, N]; anything on padding."""
        hidden = self.input(self.signal(batch))  # [P, N, channels]
        for block in self.blocks:
            hidden = block(hidden, batch.index)  # [P, N, channels]
        logits = self.output(hidden).squeeze(-1)  # [P, N]
        return logits + batch.log_mean_attention if self.start_from_attention else logits

    def signal(self, batch: MapperBatch) -> Tensor:
        """Input channels of each visual token, float32 [P, N, C]."""
        channels = batch.standardized(self.inputs)
        if "attention" in self.inputs:
            attention = batch.attention.flatten(1, 2)  # [P, 2 * heads, N]
            channels.insert(0, attention - batch.index.mean(attention))
        return torch.cat(channels, dim=1).transpose(1, 2)  # [P, N, C]


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

    def forward(self, hidden: Tensor, index: BatchIndex) -> Tensor:
        """[P, N, C] → [P, N, C]."""
        mixed = self.norm(hidden + index.convolve(self.neighbours, hidden))  # [P, N, C]
        hidden = hidden + self.contract(nn.functional.gelu(self.expand(mixed)))  # [P, N, C]
        return hidden + self.whole(index.summary(hidden)).unsqueeze(1)  # [P, N, C]
