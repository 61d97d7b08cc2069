"""The probe: what an attention layer of a decoder really sees, from the model's own code.

A twin of the model without its head runs on the whole prompt, with an attention implementation
that stops at the scoring layer. Queries, keys, scaling and window are then those of the model, bit
for bit, whatever its RoPE, norms and projections are. The mask is worked out for the instruction
tokens only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from ..prompt import QueryTokens
from ..scoring_layer import ScoringLayer
from .attention_options import NOT_SCORED, given_options, is_causal
from .mask_rules import MaskRule, SeenMask
from .twin import Twin, make_twin, recorder_of

BACKEND = "hf_token_compress_probe"
"""Name under which the probe is registered with Transformers."""

# What the model without its head does not take, or what the probe decides.
_LEFT_OUT = ("labels", "logits_to_keep", "use_cache", "cache", "past_key_values", "return_dict")


@dataclass(frozen=True)
class DecoderEntry:
    """What the decoder is called with.

    Attributes:
        inputs_embeds: float [B, S, D], visual features in place of their placeholders.
        position_ids: int64 [A, B, S] or [B, S]; None if the decoder counts them itself.
        makes_masks: Whether the decoder makes its masks from the padding mask alone.
    """

    inputs_embeds: Tensor
    position_ids: Tensor | None
    makes_masks: bool


@dataclass(frozen=True)
class AttentionCall:
    """What the attention of the scoring layer is called with.

    Attributes:
        query: float [B, heads, S, head_dim], after RoPE.
        key: float [B, key_heads, S, head_dim], after RoPE.
        mask: Which keys its queries see.
        options: Its other arguments, such as `scaling`, `sliding_window` and `softcap`.
        layer: Number of the layer.
    """

    query: Tensor
    key: Tensor
    mask: SeenMask
    options: Mapping[str, Any]
    layer: int

    @property
    def scaling(self) -> float:
        """Factor on the attention logits."""
        scaling = self.options.get("scaling")
        return float(self.query.shape[-1] ** -0.5 if scaling is None else scaling)

    def scoring_layer(self, queries: QueryTokens, attention_mask: Tensor) -> ScoringLayer:
        """The scoring layer for query tokens and a mask of padding, bool [B, S].

        Raises:
            ValueError: The mask cannot be read, or something else changes the attention.
        """
        if unread := given_options(self.options, NOT_SCORED):
            raise ValueError(
                f"The decoder's attention uses {', '.join(unread)}, which scoring does not "
                "compute: choose a scorer that needs no attention, such as 'uniform'."
            )
        key_mask = attention_mask.to(self.key.device)  # [B, S]
        sample, position = (own.to(self.key.device) for own in (queries.sample, queries.position))
        # Say it without a mask where causal order, with or without the window, is enough.
        windows = (self.options.get("sliding_window"), None)
        plain = [window for window in windows if self.mask.is_causal(window)]
        visible = None if plain else self.mask.visible(sample, position, key_mask.shape[1])
        return ScoringLayer(
            query=self.query[sample, :, position],  # [Q, heads, head_dim]
            key=self.key.transpose(1, 2),  # [B, S, key_heads, head_dim]
            sample=sample,
            position=position,
            key_mask=key_mask,
            scaling=self.scaling,
            index=self.layer,
            sliding_window=plain[0] if plain else None,
            mask=visible,
            softcap=self.options.get("softcap"),
            sinks=self.options.get("s_aux"),
            query_counts=queries.counts,
        )


class Probe:
    """Runs twins of a model on one batch of prompts.

    Args:
        model: The loaded model.
        inputs: Keyword arguments of its stock forward for the whole prompts, with their visual
            features in `mm_encoder_outputs`.
    """

    def __init__(self, model: Any, inputs: Mapping[str, Any]) -> None:
        self._model = model
        inner = model.base_model
        # A compiled module takes anything.
        inner = inner._modules.get("_orig_mod", inner)
        own = inspect.signature(type(inner).forward).parameters
        self._inputs = {
            name: value for name, value in inputs.items() if name in own and name not in _LEFT_OUT
        }
        self._entry: DecoderEntry | None = None

    def entry(self) -> DecoderEntry:
        """Run up to the decoder."""
        if self._entry is None:
            self._run(stop_at_entry=True)
        assert self._entry is not None
        return self._entry

    def attention(self, depth: int = 0) -> AttentionCall:
        """Run up to the first attention of decoder layer `depth` or of a layer above it.

        The layers below it run as they are.

        Raises:
            ValueError: The attention is not called through Transformers' `AttentionInterface`.
        """
        call = self._run(depth)
        if call is not None and depth == 0 and call.mask.is_changed:
            call = self._run(depth, with_masks=True)
        return _reached(call, self._model, depth)

    def check_one_place(self) -> None:
        """Raise unless the decoder took the positions that it was given, all tokens in one place.

        Raises:
            ValueError: It counts positions by itself.
        """
        axes = self.entry().position_ids  # [A, B, S] or [B, S]
        if axes is not None and axes is self._inputs.get("position_ids"):
            return  # without a look at the values, for which the host would wait
        if axes is not None and axes.ndim == 3:
            axes = axes[-3:]  # of four, the first counts text order
        if axes is None or (axes != axes[..., :1]).any():
            raise ValueError(
                f"{type(self._model).__name__} counts positions by itself, so its attention cannot "
                "be read without RoPE: choose a scorer that reads it with RoPE, such as "
                "'attention'."
            )

    def _run(
        self, depth: int = 0, *, stop_at_entry: bool = False, with_masks: bool = False
    ) -> AttentionCall | None:
        samples = len(self._inputs["input_ids"])
        twin, recorder = _twin_up_to(
            self._model, self._model.base_model, samples, depth, with_masks=with_masks
        )
        decoder = twin.of(self._model.get_decoder())
        forward, before = decoder.forward, vars(decoder).get("forward")
        signature = inspect.signature(type(decoder).forward)

        def enter(*args: Any, **kwargs: Any) -> Any:
            given = {**signature.bind(decoder, *args, **kwargs).arguments, **kwargs}
            mask = given.get("attention_mask")
            is_padding = mask is None or (isinstance(mask, Tensor) and mask.ndim == 2)
            self._entry = DecoderEntry(
                inputs_embeds=given["inputs_embeds"],
                position_ids=given.get("position_ids"),
                makes_masks=is_padding and not recorder.rules,
            )
            if stop_at_entry:
                raise _ReachedError
            return forward(*args, **kwargs)

        decoder.forward = enter
        try:
            return _run_twin(twin, recorder, self._inputs)
        finally:
            # Leave no circle through the probe: it holds large tensors.
            if before is None:
                del decoder.forward
            else:
                decoder.forward = before


def probe_decoder(model: Any, inputs_embeds: Tensor) -> AttentionCall:
    """Run only the decoder, up to its first attention, on hidden states, float [B, S, D].

    Raises:
        ValueError: The attention is not called through Transformers' `AttentionInterface`.
    """
    decoder = model.get_decoder()
    twin, recorder = _twin_up_to(model, decoder, samples=1)
    return _reached(_run_twin(twin, recorder, {"inputs_embeds": inputs_embeds}), model)


def _twin_up_to(
    model: Any, part: nn.Module, samples: int, depth: int = 0, *, with_masks: bool = False
) -> tuple[Twin, _Recorder]:
    """A twin of the model or its decoder that ends at the first attention from `depth` on.

    The attention of the layers below runs as it is. Layers above are made if a hybrid comes there.
    """
    decoder = model.get_decoder()
    found = decoder_layers(decoder)
    layers = list(found)  # slices of a `ModuleList` register their modules again
    needs_masks = depth > 0 or with_masks
    recorder = _Recorder(depth, decoder.config._attn_implementation if needs_masks else None)
    twin = make_twin(
        part,
        backend=BACKEND,
        recorder=recorder,
        samples=samples,
        untouched=[*_aside(part, model), *layers[depth + 1 :]],
        stock_attention=layers[:depth],
    )
    for number in range(depth + 1, len(layers)):
        twin.of(found)[number] = twin.later(layers[number])
    return twin, recorder


def _run_twin(twin: Twin, recorder: _Recorder, inputs: Mapping[str, Any]) -> AttentionCall | None:
    try:
        with twin.running():
            twin.module(**inputs, use_cache=False)
    except _ReachedError:
        pass
    # The twin's configuration holds the recorder, so it must not hold large tensors.
    call, recorder.call = recorder.call, None
    recorder.rules.clear()
    return call


def _reached(call: AttentionCall | None, model: Any, depth: int = 0) -> AttentionCall:
    if call is None:
        place = f" from layer {depth} on" if depth > 0 else ""
        raise ValueError(
            f"The attention of {type(model).__name__} cannot be read{place}, because it is not "
            "called through Transformers' AttentionInterface: choose a scorer that needs no "
            "attention, such as 'uniform'."
        )
    return call


def decoder_layers(decoder: Any) -> nn.ModuleList:
    """The layers of a decoder in order; empty if they are not in one list."""
    count = getattr(decoder.config, "num_hidden_layers", None)
    lists = (part for part in decoder.modules() if isinstance(part, nn.ModuleList))
    return next((part for part in lists if len(part) == count), nn.ModuleList())


@dataclass
class _Recorder:
    """What one run finds.

    Attributes:
        depth: Decoder layers before the scoring layer, hybrids aside.
        stock_backend: Attention implementation whose masks are made; None to make none.
        rules: How the masks were made that the run asked for.
        call: The call of the scoring layer's attention.
    """

    depth: int
    stock_backend: str | None
    rules: list[MaskRule] = field(default_factory=list)
    call: AttentionCall | None = None


class _ReachedError(Exception):
    """Ends a run."""


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> Any:
    recorder: _Recorder = recorder_of(module.config)
    mask = SeenMask(
        attention_mask,
        tuple(recorder.rules),
        is_causal(module, options),
        options.get("sliding_window"),
    )
    layer = getattr(module, "layer_idx", None)
    recorder.call = AttentionCall(
        query, key, mask, options, recorder.depth if layer is None else layer
    )
    raise _ReachedError


def _attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *args: Any,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    config: Any,
    device: Any = None,
    **options: Any,
) -> Tensor | None:
    """Note how a mask is made; make it only if layers below the scoring layer need it."""
    recorder: _Recorder = recorder_of(config)
    made: Tensor | None
    if recorder.stock_backend is None:
        # A single True in the shape of the mask: no layer reads it.
        made = torch.ones(1, dtype=torch.bool, device=device)
        made = made.expand(batch_size, 1, q_length, kv_length)
    else:
        make = AttentionMaskInterface().get(recorder.stock_backend)
        made = make and make(
            batch_size,
            q_length,
            kv_length,
            *args,
            mask_function=mask_function,
            attention_mask=attention_mask,
            config=config,
            device=device,
            **options,
        )
    recorder.rules.append(MaskRule(made, mask_function))
    return made


AttentionInterface.register(BACKEND, _attention)
AttentionMaskInterface.register(BACKEND, _attention_mask)


def _aside(part: nn.Module, model: Any) -> list[nn.Module]:
    """Parts that a prompt with features does not run through, such as vision towers."""
    decoder, embeddings = model.get_decoder(), model.get_input_embeddings()
    if part is decoder:
        return []
    aside: list[nn.Module] = []
    for child in part.children():
        if child is decoder:
            continue
        inside = set(child.modules())
        if decoder in inside:
            aside += _aside(child, model)
        elif embeddings not in inside:
            aside.append(child)
    return aside
