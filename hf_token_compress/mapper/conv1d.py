"""The network of arXiv 2506.01097: 1-D convolutions over the sequence of visual tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import check_choice, check_count, check_number
from .batch import MapperBatch
from .config import MAX_CHANNELS, MAX_LAYERS
from .inputs import standardized_channels

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Conv1dNetwork(nn.Module):
    """Depthwise-separable 1-D convolutions, then a pointwise convolution to one logit per token.

    The compressor of arXiv 2506.01097: its input is the mean attention of the
    instruction tokens, its layers have 32, 64, 128, 256 and 512 channels. What the paper leaves
    open is an argument here. Other inputs than attention are not the paper's; the channels of
    `MapperBatch.standardized` follow those of the heads.

    Args:
        heads: Attention heads of the model.
        inputs: Groups of input channels, from "attention", "text" and "embedding".
        channels: Output channels of each layer, 1 to 4096; one to 1000 layers.
        kernel_size: Tokens that a depthwise convolution spans, odd.
        activation: Activation after each layer: "relu", "gelu" or "silu".
        input_scale: "raw" takes the attention as it is; "share" scales the attention to visual
            tokens to a mean of 1, whatever their number; "log_share" takes its logarithm.
        input_heads: "separate" makes every attention head one input channel; "mean" averages the
            heads into one channel.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is unknown or out of range.
    """

    def __init__(
        self,
        *,
        heads: int,
        inputs: Sequence[str] = ("attention",),
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        kernel_size: int = 9,
        activation: str = "relu",
        input_scale: str = "share",
        input_heads: str = "separate",
    ) -> None:
        super().__init__()
        of = "of the mapper network conv1d"
        check_choice(f"activation {of}", activation, tuple(ACTIVATIONS))
        check_choice(f"input_scale {of}", input_scale, ("raw", "share", "log_share"))
        check_choice(f"input_heads {of}", input_heads, ("separate", "mean"))
        if isinstance(channels, str) or not isinstance(channels, Sequence):
            kind = type(channels).__name__
            raise TypeError(f"channels {of} must be a list of whole numbers, not {kind}.")
        if not 0 < len(channels) <= MAX_LAYERS:
            raise ValueError(
                f"channels {of} must name at least one layer and at most {MAX_LAYERS}, "
                f"but it names {len(channels)}."
            )
        for count in channels:
            check_number(f"Each of the channels {of}", count, f"[1, {MAX_CHANNELS}]", whole=True)
        check_count(f"kernel_size {of}", kernel_size, at_least=1)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {of} must be odd, but it is {kernel_size}.")
        self.inputs = tuple(inputs)
        self.input_scale = input_scale
        self.input_heads = input_heads
        self.activation = ACTIVATIONS[activation]()
        self.depthwise = nn.ModuleList()
        self.pointwise = nn.ModuleList()
        width = standardized_channels(inputs)
        if "attention" in inputs:
            width += heads if input_heads == "separate" else 1
        for count in channels:
            self.depthwise.append(
                nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
            )
            self.pointwise.append(nn.Conv1d(width, count, 1))
            width = count
        self.output = nn.Conv1d(width, 1, 1)
        # It shifts all logits of a prompt alike, as in `GridNetwork`.
        self.output.get_parameter("bias").requires_grad_(False)

    def forward(self, batch: MapperBatch) -> Tensor:
        """Logits of the visual tokens of P prompts, float32 [P, N]; anything on padding."""
        missing = batch.index.missing
        hidden = self.signal(batch)  # [P, C, N]
        if missing is not None:
            # Zeros past the end, like the padding of the convolution: a prompt gets the same logits
            # in a batch as alone.
            hidden = hidden.masked_fill(missing, 0.0)
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            hidden = self.activation(pointwise(depthwise(hidden)))  # [P, C, N]
            if missing is not None:
                hidden = hidden.masked_fill(missing, 0.0)
        return self.output(hidden).squeeze(1)  # [P, N]

    def signal(self, batch: MapperBatch) -> Tensor:
        """Input channels of each visual token, float32 [P, C, N]."""
        channels = batch.standardized(self.inputs)
        if "attention" in self.inputs:
            channels.insert(0, self._attention(batch))
        return torch.cat(channels, dim=1)

    def _attention(self, batch: MapperBatch) -> Tensor:
        """Channels of the attention, float32 [P, C, N]; C is the number of heads or 1."""
        if self.input_heads == "separate":
            log_attention = batch.attention[:, 0]  # [P, heads, N]
        else:
            log_attention = batch.log_mean_attention.unsqueeze(1)  # [P, 1, N]
        if self.input_scale == "raw":
            return log_attention.exp()
        log_share = batch.index.log_shares(log_attention) + batch.index.lengths.log()
        return log_share if self.input_scale == "log_share" else log_share.exp()
