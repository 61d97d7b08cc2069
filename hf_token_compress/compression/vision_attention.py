"""Attention that the patches of images and videos receive in the vision tower.

The vision part runs on a twin of the model, whose tower shows the input of one layer to an
observer: a second twin, of that layer alone, whose attention implementation reduces query and key
to received attention. So the tower's own implementation computes the features, whichever it is.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from ..kernels.instruction_attention import instruction_attention
from ..models.family import ModelFamily
from ..models.visuals import EncodedVisuals
from ..prompt import Modality
from .attention_options import NOT_PLAIN, given_options, is_causal
from .stopwatch import Stopwatch
from .twin import make_twin, recorder_of

BACKEND = "hf_token_compress_vision_attention"
"""Name under which the reduction is registered with Transformers."""

# What towers call the parameter that becomes their first token.
_CLS_PARAMETERS = ("class_embedding", "cls_token")
# Queries whose attention the torch kernel holds at once.
_CHUNK_SIZE = 64


@torch.compiler.disable  # type: ignore[untyped-decorator]
def features_with_attention(
    model: Any,
    family: ModelFamily,
    inputs: Mapping[str, Any],
    modality: Modality,
    stopwatch: Stopwatch,
) -> tuple[EncodedVisuals, list[Tensor]]:
    """Features, as `family.features` returns them, and the attention that their patches receive.

    It is that of the second-to-last layer of the vision tower (arXiv 2412.04467, section 3), or of
    its only one, averaged over heads: from the CLS token, or else the mean over the queries that
    attend to each other, such as those of an image, a tile or a frame.

    Args:
        model: The loaded model.
        family: Its family.
        inputs: Keyword arguments of the stock forward, with pixels of this modality.
        modality: "image" or "video".
        stopwatch: Measures what the attention costs.

    Returns:
        The features, and one float32 [images or tiles or frames, patches] for each time that the
        layer calls its attention.

    Raises:
        ValueError: The attention cannot be read, or `inputs` do not fit.
    """
    tower = model.get_encoder(modality=modality)
    layer = _observed_layer(model, tower)
    inside = set(tower.modules())
    aside = [part for part in model.modules() if part not in inside and not _holds(part, tower)]
    # A forward that was replaced, such as one of a fused kernel, stays.
    replaced = [
        part
        for part in inside
        if "forward" in vars(part) and "_hf_hook" not in vars(part) and not _holds(part, layer)
    ]
    twin = make_twin(model, untouched=[*aside, *replaced], evaluation=False)
    recorder = _Recorder(type(tower).__name__, _has_cls(tower))
    observer = make_twin(layer, backend=BACKEND, recorder=recorder, untouched=replaced)

    def observe(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Outside its context, Transformers does not collect the observer's output.
        with stopwatch.running(), torch.no_grad(), observer.running():
            contextvars.Context().run(observer.module, *args, **kwargs)

    hook = twin.of(layer).register_forward_pre_hook(observe, prepend=True, with_kwargs=True)
    try:
        with twin.running():
            visuals = family.features(twin.module, inputs, modality)
    finally:
        hook.remove()
    if not recorder.received:
        raise recorder.refusal("it is not called through Transformers' AttentionInterface")
    return visuals, recorder.received


@dataclass
class _Recorder:
    """What one run finds.

    Attributes:
        tower: Name of the tower's class.
        has_cls: Whether its first token is CLS.
        received: float32 [images or tiles or frames, patches] of each call of the attention.
    """

    tower: str
    has_cls: bool
    received: list[Tensor] = field(default_factory=list)

    def refusal(self, reason: str) -> ValueError:
        return ValueError(
            f"The attention of {self.tower} cannot be read, because {reason}: choose a scorer that "
            "does not need vision_attention, such as 'attention'."
        )


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Note the attention that keys receive; the output is not used."""
    recorder: _Recorder = recorder_of(module.config)
    if attention_mask is not None or is_causal(module, options):
        raise recorder.refusal("it has a mask")
    if given := given_options(options, NOT_PLAIN):
        raise recorder.refusal(f"it uses {', '.join(given)}")
    samples, heads, length, _ = query.shape
    asking = query[:, :, :1] if recorder.has_cls else query  # [B, heads, 1 or N, head_dim]
    sample = torch.arange(samples, device=query.device)
    sample = sample.repeat_interleave(asking.shape[2], output_size=samples * asking.shape[2])
    received = instruction_attention(
        asking.transpose(1, 2).flatten(0, 1),  # [queries, heads, head_dim]
        key.transpose(1, 2),  # [B, N, key_heads, head_dim]
        sample,
        torch.full_like(sample, length - 1),  # every query sees every key
        torch.ones(samples, length, dtype=torch.bool, device=query.device),
        scaling=options.get("scaling"),
        query_counts=(asking.shape[2],) * samples,
        chunk_size=_CHUNK_SIZE,
    )
    recorder.received.append(received[:, 1:] if recorder.has_cls else received)
    return value.new_zeros(samples, length, heads, value.shape[-1]), None


AttentionInterface.register(BACKEND, _attention)


def _observed_layer(model: Any, tower: Any) -> nn.Module:
    lists = [part for part in tower.modules() if isinstance(part, nn.ModuleList) and len(part)]
    if not lists or _holds(tower, model.get_decoder()):
        raise ValueError(
            f"{type(model).__name__} has no vision tower with layers in a list: choose a scorer "
            "that does not need vision_attention, such as 'attention'."
        )
    layers = max(lists, key=len)
    return layers[max(len(layers) - 2, 0)]


def _has_cls(tower: nn.Module) -> bool:
    return any(name.endswith(_CLS_PARAMETERS) for name, _ in tower.named_parameters())


def _holds(module: nn.Module, part: nn.Module) -> bool:
    return any(own is part for own in module.modules())
