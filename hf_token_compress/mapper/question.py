"""A network that reads the words of the instruction beside the visual tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from ..checks import check_number
from .batch import BatchIndex, MapperBatch
from .config import MAX_CHANNELS

_WAVES = 4
_COORDINATES = 4 + 4 * _WAVES
_DILATIONS = (1, 2, 4, 2, 1)
_SMALLEST_DEVIATION = 1e-6


class QuestionNetwork(nn.Module):
    """Residual blocks on the grids, steered by the words of the instruction.

    It sees the embeddings of the visual tokens and of the instruction, and where each token lies,
    so that it can learn what "row two" or "left of the key" asks for. Small convolutions over the
    words and a pooling with several heads turn the instruction into one vector, which scales and
    shifts the channels of every block. Each head also picks words whose match with every token is
    an input channel. Blocks mix a token with those around it in its frame, up to eight cells away,
    and with a summary of all visual tokens of the prompt.

    Args:
        hidden_size: Width of the language model.
        channels: Width of the blocks, 1 to 4096.
        question_channels: Width of the vector of the instruction, 1 to 4096.
        word_heads: Heads that pick words, 1 to 4096.
        match_channels: Dimensions in which a head compares words and tokens, 1 to 4096.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        channels: int = 48,
        question_channels: int = 64,
        word_heads: int = 4,
        match_channels: int = 24,
    ) -> None:
        super().__init__()
        widths = {
            "channels": channels,
            "question_channels": question_channels,
            "word_heads": word_heads,
            "match_channels": match_channels,
        }
        for name, value in widths.items():
            of = f"{name} of the mapper network question"
            check_number(of, value, f"[1, {MAX_CHANNELS}]", whole=True)
        self.match_shape = word_heads, match_channels
        self.word = nn.Linear(hidden_size, question_channels)
        self.phrases = nn.ModuleList(
            nn.Conv1d(question_channels, question_channels, 3, padding=1) for _ in range(2)
        )
        self.pool = nn.Linear(question_channels, word_heads)
        self.question = nn.Sequential(
            nn.Linear(word_heads * question_channels, question_channels),
            nn.GELU(),
            nn.Linear(question_channels, question_channels),
            nn.GELU(),
        )
        self.pick = nn.Linear(question_channels, word_heads)
        self.asked = nn.Linear(hidden_size, word_heads * match_channels, bias=False)
        self.shown = nn.Linear(hidden_size, word_heads * match_channels, bias=False)
        self.input = nn.Linear(hidden_size + _COORDINATES + word_heads, channels)
        stack = [QuestionBlock(channels, question_channels, own) for own in _DILATIONS]
        self.blocks = nn.ModuleList(stack)
        self.output = nn.Linear(channels, 1)
        # As in `GridNetwork`: these add one number to all logits of a prompt.
        stack[-1].contract.bias.requires_grad_(False)
        stack[-1].whole.requires_grad_(False)
        self.output.bias.requires_grad_(False)

    def forward(self, batch: MapperBatch) -> Tensor:
        """Logits of the visual tokens of P prompts, float32 [P, N]; anything on padding."""
        tokens, words, unasked = batch.embeddings()  # [P, N, D], [P, R, D], [P, R]
        unasked = unasked.unsqueeze(-1)  # [P, R, 1]
        # 1. Tokens relative to the mean of the prompt, at a mean square of 1.
        centred = tokens.transpose(1, 2)  # [P, D, N]
        centred = centred - batch.index.mean(centred)
        square = batch.index.mean(centred.square()).mean(dim=1, keepdim=True)  # [P, 1, 1]
        shown = (centred / square.sqrt().clamp(min=_SMALLEST_DEVIATION)).transpose(1, 2)
        # 2. The instruction.
        asked = layer_norm(words, words.shape[-1:]).masked_fill(unasked, 0.0)  # [P, R, D]
        phrase = self.word(asked).masked_fill(unasked, 0.0)  # [P, R, Q]
        for convolution in self.phrases:
            mixed = convolution(phrase.transpose(1, 2)).transpose(1, 2)
            phrase = (phrase + gelu(mixed)).masked_fill(unasked, 0.0)
        weights = _over_words(self.pool(phrase), unasked)  # [P, R, heads]
        pooled = torch.einsum("prh,prq->phq", weights, phrase).flatten(1)
        question = self.question(pooled)  # [P, Q]
        # 3. How well the words that each head picks match each token.
        picked = _over_words(self.pick(phrase), unasked)  # [P, R, heads]
        keys = self.asked(asked).unflatten(-1, self.match_shape)  # [P, R, heads, d]
        key = torch.einsum("prh,prhd->phd", picked, keys)
        queries = self.shown(shown).unflatten(-1, self.match_shape)  # [P, N, heads, d]
        match = torch.einsum("pnhd,phd->pnh", queries, key) / math.sqrt(self.match_shape[1])
        # 4. The blocks.
        places = coordinates(batch.index)  # [P, N, coordinates]
        hidden = self.input(torch.cat([shown, places, match], dim=-1))  # [P, N, channels]
        for block in self.blocks:
            hidden = block(hidden, question, batch.index)
        return self.output(hidden).squeeze(-1)  # [P, N]


class QuestionBlock(nn.Module):
    """A residual block: tokens around and channels, steered by the instruction; the whole prompt.

    Args:
        channels: Width.
        question_channels: Width of the vector of the instruction.
        dilation: Cells between those that the 5 x 5 convolution mixes.
    """

    def __init__(self, channels: int, question_channels: int, dilation: int) -> None:
        super().__init__()
        self.around = FrameConvolution(channels, dilation)
        self.norm = nn.LayerNorm(channels)
        self.steer = nn.Linear(question_channels, 2 * channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.contract = nn.Linear(2 * channels, channels)
        self.whole = nn.Linear(2 * channels, channels)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, hidden: Tensor, question: Tensor, index: BatchIndex) -> Tensor:
        """[P, N, C], [P, Q] → [P, N, C]."""
        scale, shift = self.steer(question).unsqueeze(1).chunk(2, dim=-1)  # [P, 1, C] each
        mixed = self.norm(hidden + index.convolve(self.around, hidden))  # [P, N, C]
        mixed = mixed * (1 + scale) + shift
        hidden = hidden + self.contract(gelu(self.expand(mixed)))  # [P, N, C]
        return hidden + self.whole(index.summary(hidden)).unsqueeze(1)


class FrameConvolution(nn.Conv2d):
    """A depthwise 5 x 5 convolution within each frame.

    Args:
        channels: Width.
        dilation: Cells between those that it mixes.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(
            channels, channels, 5, padding=2 * dilation, dilation=dilation, groups=channels
        )

    def forward(self, input: Tensor) -> Tensor:
        """[G, C, frames, rows, columns] → the same shape."""
        frames = input.transpose(1, 2)  # [G, frames, C, rows, columns]
        mixed = super().forward(frames.flatten(0, 1))
        return mixed.unflatten(0, frames.shape[:2]).transpose(1, 2)


def coordinates(index: BatchIndex) -> Tensor:
    """Where each token lies, from -1 to 1: in its frame, in its video, among the prompt's tokens.

    Row and column also come as sines and cosines. Tokens on no grid have only the last.

    Returns:
        float32 [P, N, coordinates].
    """
    prompts = len(index.counts)
    device = index.lengths.device
    grids, *sizes = index.canvas  # [G, frames, rows, columns]
    count = len(index.cells) // max(prompts, 1)
    order = (2 * torch.arange(count, device=device) + 1) / index.lengths.flatten()[:, None] - 1
    if len(index.tokens) == 0:
        return torch.nn.functional.pad(order.unsqueeze(-1), (_COORDINATES - 1, 0))
    covered = torch.ones(index.canvas, device=device)
    if index.uncovered is not None:
        covered = (~index.uncovered).float().view(index.canvas)
    axes = []
    for axis, size in enumerate(sizes, start=1):
        others = tuple(other for other in (1, 2, 3) if other != axis)
        own = covered.amax(dim=others).sum(dim=1)  # [G], cells of each grid along the axis
        steps = 2 * torch.arange(size, device=device) + 1  # [size]
        shape = [grids if other == 0 else size if other == axis else 1 for other in range(4)]
        axes.append((steps / own[:, None] - 1).view(shape).expand(index.canvas))
    frame, row, column = (values.flatten()[index.cells] for values in axes)  # [P * N] each
    angles = (
        math.pi * torch.arange(1, _WAVES + 1, device=device) * torch.stack([row, column])[..., None]
    )
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # [2, P * N, 2 * waves]
    values = torch.cat([torch.stack([frame, row, column], dim=-1), *waves], dim=-1)
    if index.loose is not None:
        values = values.masked_fill(index.loose, 0.0)
    return torch.cat([values.view(prompts, count, -1), order.unsqueeze(-1)], dim=-1)


def _over_words(logits: Tensor, unasked: Tensor) -> Tensor:
    """Softmax over the words of each prompt, [P, R, heads]; 0 on padding."""
    return logits.masked_fill(unasked, -torch.inf).softmax(dim=1)
