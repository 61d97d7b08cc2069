"""The paper's network: 1-D convolutions over the visual tokens in their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..checks import check_count
from .inputs import MapperInput
from .untrained import leave_untrained

InputScale = Literal["raw", "share", "log_share"]
InputHeads = Literal["separate", "mean"]
Activation = Literal["relu", "gelu", "silu"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Conv1dNetwork(nn.Module):
    """Depthwise-separable 1-D convolutions, then one pointwise convolution to a logit per token.

    This is the compressor of arXiv 2506.01097, section 3: attention averaged over instruction rows
    goes in; there are 32, 64, 128, 256 and 512 channels. What the paper leaves open are arguments
    here.

    Args:
        heads: Attention heads of the model.
        channels: Output channels of each layer, at least 1.
        kernel_size: Tokens that a depthwise convolution spans, odd.
        activation: After each layer: "relu", "gelu" or "silu".
        input_scale: "raw" takes the attention as it is; "share" scales the attention to visual
            tokens to a mean of 1, whatever their number; "log_share" takes the logarithm of that.
        input_heads: "separate" takes every attention head as a channel of its own; "mean" takes
            their mean, one channel.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is none of those.
    """

    def __init__(
        self,
        *,
        heads: int,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        kernel_size: int = 9,
        activation: Activation = "relu",
        input_scale: InputScale = "share",
        input_heads: InputHeads = "separate",
    ) -> None:
        super().__init__()
        for name, value, kind in (
            ("activation", activation, Activation),
            ("input_scale", input_scale, InputScale),
            ("input_heads", input_heads, InputHeads),
        ):
            if value not in get_args(kind):
                raise ValueError(
                    f"The mapper network conv1d has no {name} {value!r}: choose one of "
                    f"{', '.join(get_args(kind))}."
                )
        if isinstance(channels, str) or not isinstance(channels, Sequence):
            raise TypeError(
                "channels of the mapper network conv1d must be a list of whole numbers, not "
                f"{type(channels).__name__}."
            )
        if not channels:
            raise ValueError("channels of the mapper network conv1d must name at least one layer.")
        for count in channels:
            check_count("Each of the channels of the mapper network conv1d", count, at_least=1)
        check_count("kernel_size of the mapper network conv1d", kernel_size, at_least=1)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of the mapper network conv1d is odd, not {kernel_size}.")
        self.input_scale = input_scale
        self.input_heads = input_heads
        self.activation = ACTIVATIONS[activation]()
        self.depthwise = nn.ModuleList()
        self.pointwise = nn.ModuleList()
        width = heads if input_heads == "separate" else 1
        for count in channels:
            self.depthwise.append(
                nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
            )
            self.pointwise.append(nn.Conv1d(width, count, 1))
            width = count
        self.output = nn.Conv1d(width, 1, 1)
        leave_untrained(self.output.bias)

    def forward(self, inputs: Sequence[MapperInput]) -> list[Tensor]:
        """A logit per visual token of each prompt: float32 [N] each."""
        counts = [item.count for item in inputs]
        signals = [self._signal(item) for item in inputs]
        hidden = pad_sequence(signals, batch_first=True).transpose(1, 2)  # [P, C, longest]
        places = torch.arange(hidden.shape[-1], device=hidden.device)
        lengths = torch.tensor(counts, device=hidden.device)
        present = (places < lengths[:, None]).unsqueeze(1)  # [P, 1, longest]
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            # Zero past the end, as the padding of a convolution is: a prompt gets in a batch what
            # it gets alone.
            hidden = self.activation(pointwise(depthwise(hidden))) * present
        logits = self.output(hidden).squeeze(1)  # [P, longest]
        return [row[:count] for row, count in zip(logits, counts, strict=True)]

    def _signal(self, item: MapperInput) -> Tensor:
        """[2, heads, N] → [N, C], C the number of heads or 1."""
        if self.input_heads == "separate":
            log_attention = item.attention[0].float()  # [heads, N]
        else:
            log_attention = item.log_mean_attention.unsqueeze(0)  # [1, N]
        if self.input_scale == "raw":
            return log_attention.exp().T
        log_share = log_attention.log_softmax(dim=-1) + math.log(item.count)
        return (log_share if self.input_scale == "log_share" else log_share.exp()).T
