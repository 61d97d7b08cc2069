"""See every attention layer of a decoder and the gradient of its output, without its maps.

A backend registered with Transformers runs SDPA as ever, and puts a tap on its output. Autograd
visits the taps from the top layer down, each with query, key, value and the gradient of the output:
all that is needed to work out A and ∂y/∂A row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import Function
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

MEMORY_LIMIT = 32 * 2**20
"""Bytes of scratch that working on an attention layer may take by default."""

BACKEND = "hf_token_compress_relevance"
"""Name under which the backend is registered with Transformers."""

# Arguments of attention that change its map in ways that are not worked out here.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "head_mask")


@dataclass(frozen=True)
class AttentionLayer:
    """What one attention layer did.

    Attributes:
        query: float [B, heads, S, head_dim], after RoPE.
        key: float [B, key_heads, S, head_dim], after RoPE.
        value: float [B, key_heads, S, value_dim].
        mask: bool [B or 1, heads or 1, S, S], True where a row sees a key; None where `causal`
            says it all.
        causal: A row sees keys up to its own column.
        scaling: Factor on the attention logits; None for head_dim ** -0.5.
        memory_limit: Bytes of scratch that working on it may take.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scaling: float | None
    memory_limit: int

    @property
    def chunk_size(self) -> int:
        """Query rows whose float32 logits, gradients and products fit the limit, at least one."""
        batch, heads, length, _ = self.query.shape
        return max(1, self.memory_limit // (3 * 4 * batch * heads * length))


Visit = Callable[[AttentionLayer, Tensor], None]
"""Called with a layer and the gradient of its output, float [B, heads, S, value_dim]."""


class AttentionTap:
    """The visitor of a decoder's layers while `tapped_attention` is active.

    Attributes:
        memory_limit: Bytes of scratch that working on a layer may take.
        visit: Called in the backward pass, once per layer, from the top layer down.
        forward_layers: The layers of the last forward in order, where `keep_layers` is set.
        count: Layers that the forward passed through.
    """

    def __init__(
        self,
        visit: Visit | None = None,
        *,
        keep_layers: bool = False,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self.visit = visit
        self.memory_limit = memory_limit
        self.keep_layers = keep_layers
        self.forward_layers: list[AttentionLayer] = []
        self.count = 0

    def check(self, model: Any) -> None:
        """Raise unless the forward passed through at least one layer.

        Raises:
            ValueError: The model's attention did not come by.
        """
        if self.count == 0:
            raise ValueError(
                f"The attention of {type(model).__name__} cannot be intercepted, because it is not "
                "called through Transformers' AttentionInterface: use a rule that needs no "
                "attention, such as 'gradient_input' or 'occlusion'."
            )


_TAPS: WeakKeyDictionary[nn.Module, AttentionTap] = WeakKeyDictionary()


class _Tap(Function):
    """The identity on the attention output; its backward shows the gradient to the tap.

    The layer's tensors are saved through autograd, so that gradient checkpointing may drop them and
    work them out again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        setting: tuple[AttentionTap, bool, float | None],
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.setting = setting
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients  # [B, S, heads, value_dim]
        query, key, value, mask = ctx.saved_tensors
        tap, causal, scaling = ctx.setting
        if tap.visit is not None:
            layer = AttentionLayer(query, key, value, mask, causal, scaling, tap.memory_limit)
            tap.visit(layer, gradient.transpose(1, 2))
        return gradient, None, None, None, None, None


def _attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    tap = _TAPS.get(module)
    unsupported = [name for name in _UNSUPPORTED if options.get(name) is not None]
    if tap is not None and unsupported:
        raise ValueError(
            f"Relevance cannot be worked out for {type(module).__name__}: its attention uses "
            f"{', '.join(unsupported)}, which changes the attention map."
        )
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if tap is None:
        return output, None
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise ValueError(
            f"Relevance cannot be worked out for {type(module).__name__}: it adds a mask of "
            "numbers to its attention logits, where one of True and False is needed."
        )
    tap.count += 1
    is_causal = options.get("is_causal")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    causal = attention_mask is None and bool(is_causal)
    scaling = options.get("scaling")
    if tap.keep_layers:
        layer = AttentionLayer(query, key, value, attention_mask, causal, scaling, tap.memory_limit)
        tap.forward_layers.append(layer)
    return _Tap.apply(output, query, key, value, attention_mask, (tap, causal, scaling)), None


def _attention_mask(
    batch_size: int, q_length: int, kv_length: int, *args: Any, **options: Any
) -> Tensor | None:
    """The mask of SDPA, without padding on the right: causal attention never looks there."""
    padding = options.get("attention_mask")
    plain = options.get("allow_is_causal_skip", False) and q_length == kv_length
    if plain and padding is not None and _is_right_padded(padding):
        options["attention_mask"] = None
    return sdpa_mask(batch_size, q_length, kv_length, *args, **options)


def _is_right_padded(mask: Tensor) -> bool:
    return mask.ndim == 2 and bool((mask[:, 1:] <= mask[:, :-1]).all())


AttentionInterface.register(BACKEND, _attention_forward)
AttentionMaskInterface.register(BACKEND, _attention_mask)


@contextmanager
def tapped_attention(decoder: Any, tap: AttentionTap) -> Iterator[AttentionTap]:
    """Show the attention layers of a decoder to `tap` inside the `with` block.

    Args:
        decoder: The language model as a Transformers model, such as `model.get_decoder()`.
        tap: The visitor.

    Raises:
        ValueError: Transformers cannot change the attention implementation of that decoder.
    """
    before = decoder.config._attn_implementation
    modules = list(decoder.modules())
    try:
        decoder.set_attn_implementation(BACKEND)
        if decoder.config._attn_implementation != BACKEND:
            raise ValueError(
                f"Relevance needs the attention of {type(decoder).__name__}, which cannot be "
                "intercepted: its attention is not called through Transformers' AttentionInterface."
            )
        _TAPS.update(dict.fromkeys(modules, tap))
        yield tap
    finally:
        for module in modules:
            _TAPS.pop(module, None)
        decoder.config._attn_implementation = before
