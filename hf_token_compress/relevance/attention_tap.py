"""Visit every attention layer of a decoder with the gradient of its output, without storing maps.

A twin of the model has a backend that runs SDPA unchanged and puts a tap on its output. Autograd
visits the taps from the top layer down, each with query, key, value and the gradient of the output.
This is enough to compute A and ∂y/∂A for a few queries at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..compression.attention_options import NOT_PLAIN, given_options, is_causal
from ..compression.mask_rules import MaskRule, SeenMask
from ..compression.twin import make_twin, recorder_of
from ..kernels.relevance_step import relevance_step

MEMORY_LIMIT = 32 * 2**20
"""Default for the bytes of scratch memory that one attention layer may take."""

BACKEND = "hf_token_compress_relevance"
"""Name under which the backend is registered with Transformers."""


@dataclass(frozen=True)
class AttentionLayer:
    """The inputs of one attention layer in a forward pass over B samples of S tokens.

    Attributes:
        query: float [B, heads, S, head_dim], after RoPE.
        key: float [B, key_heads, S, head_dim], after RoPE.
        value: float [B, key_heads, S, value_dim].
        mask: bool [B or 1, heads or 1, S, S], True where a query sees a key; None where `causal`
            is the only mask.
        causal: A query sees keys up to its own position.
        scaling: Factor on the attention logits; None for head_dim ** -0.5.
        memory_limit: Bytes of scratch memory that `propagate` may take.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scaling: float | None
    memory_limit: int

    def propagate(self, relevance: Tensor, gradient: Tensor | None, **options: Any) -> Tensor:
        """Relevance below this layer from that above it, by the kernel `relevance_step`.

        Args:
            relevance: float32 [G, B, S], above the layer.
            gradient: float [G, B, heads, S, value_dim], of the targets with respect to the layer's
                output; None if `reduction` is "attention".
            options: `reduction`, `residual` and other options of `relevance_step`.

        Returns:
            float32 [G, B, S].
        """
        batch, heads, length, _ = self.query.shape
        # Queries whose float32 logits, gradients and products fit the memory limit.
        chunk_size = max(1, self.memory_limit // (3 * 4 * batch * heads * length))
        return relevance_step(
            relevance,
            self.query,
            self.key,
            self.value,
            gradient,
            mask=self.mask,
            causal=self.causal,
            scaling=self.scaling,
            chunk_size=chunk_size,
            **options,
        )


@dataclass(eq=False)
class AttentionTap:
    """Sees the attention layers of the decoder of a tapped twin.

    Attributes:
        visit: Called in the backward pass from the top layer down, with each layer and the gradient
            of its output, float [B, heads, S, value_dim].
        keep_layers: Keep the layers of the forward pass.
        memory_limit: Bytes of scratch memory that one layer may take.
        forward_layers: The layers of the forward pass in order, if `keep_layers` is set.
        count: Number of layers in the forward pass.
    """

    visit: Callable[[AttentionLayer, Tensor], None] | None = None
    keep_layers: bool = False
    memory_limit: int = MEMORY_LIMIT
    forward_layers: list[AttentionLayer] = field(default_factory=list)
    count: int = 0

    def check(self, model: Any) -> None:
        """Raise `ValueError` if the forward pass went through layers without a tap."""
        layers = model.get_decoder().config.num_hidden_layers
        if self.count == 0:
            reason = "it is not called through Transformers' AttentionInterface"
            raise _refusal(type(model).__name__, reason)
        if self.count < layers:
            reason = f"only {self.count} of {layers} layers have any"
            raise _refusal(type(model).__name__, reason)


def tapped_twin(model: Any, tap: AttentionTap) -> Any:
    """A twin of a model that passes its attention layers to `tap`; parameters are shared."""
    return make_twin(model, backend=BACKEND, recorder=tap).module


def _refusal(name: str, reason: str) -> ValueError:
    return ValueError(
        f"The attention of {name} cannot be intercepted, because {reason}: use a rule that needs "
        "no attention, such as 'gradient_input' or 'occlusion'."
    )


class _Tap(Function):
    """The identity on the attention output; its backward passes the gradient to the tap.

    Autograd saves the layer's tensors, so that gradient checkpointing can drop and recompute them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        tap: AttentionTap,
        make_layer: Callable[..., AttentionLayer],
        *tensors: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.tap, ctx.make_layer = tap, make_layer
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients  # [B, S, heads, value_dim]
        if ctx.tap.visit is not None:
            layer = ctx.make_layer(*ctx.saved_tensors)
            ctx.tap.visit(layer, gradient.transpose(1, 2))  # [B, heads, S, value_dim]
        return gradient, *[None] * 6


def _attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    tap: AttentionTap = recorder_of(module.config)  # type: ignore[arg-type]
    # Refuse attention whose map cannot be recomputed.
    if unsupported := given_options(options, NOT_PLAIN):
        raise _refusal(type(module).__name__, f"it uses {', '.join(unsupported)}")
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise _refusal(type(module).__name__, "it adds a mask of numbers to its logits")
    if attention_mask is None and not is_causal(module, options):
        raise _refusal(type(module).__name__, "it has no mask and is not causal")
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    # Show the layer to the tap.
    tap.count += 1
    make_layer = partial(
        AttentionLayer,
        causal=attention_mask is None,
        scaling=options.get("scaling"),
        memory_limit=tap.memory_limit,
    )
    if tap.keep_layers:
        tap.forward_layers.append(make_layer(query, key, value, attention_mask))
    return _Tap.apply(output, tap, make_layer, query, key, value, attention_mask), None


def _attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    **options: Any,
) -> Tensor | None:
    """The mask of SDPA, without padding on the right where the mask is causal."""
    if attention_mask is not None and attention_mask.ndim == 2 and q_length == kv_length:
        mask = SeenMask(None, (MaskRule(None, mask_function),), True, None)
        right_padded = bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all())
        if right_padded and mask.is_causal(options.get("local_size")):
            attention_mask = None
    return sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        **options,
    )


AttentionInterface.register(BACKEND, _attention_forward)
AttentionMaskInterface.register(BACKEND, _attention_mask)
