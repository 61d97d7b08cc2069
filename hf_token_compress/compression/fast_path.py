"""Project only the instruction tokens to queries, where layer 0 is known to allow it.

The probe projects every token to queries and values. In a Llama-like layer 0, the norm, the
projections and RoPE can be called by hand instead, for the tokens that matter. Whether a model has
such a layer is not assumed: what it computes is compared with what the probe finds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..device_copy import few_launches
from ..models.family import ModelFamily
from ..models.visuals import EncodedVisuals
from ..prompt import MODALITIES, QueryTokens, VisualLayout, find_visual_spans
from ..scoring_layer import ScoringLayer
from .attention_options import NOT_PLAIN, given_options
from .inputs import PromptLayout, is_placeholder
from .llama_layer import LlamaLikeLayer
from .precision import without_autocast
from .probe import AttentionCall, Probe
from .stopwatch import Stopwatch
from .twin import make_twin

_logger = logging.getLogger(__name__)
_POSITIONS_PER_CHUNK = 512
"""Positions to normalise and project to keys at once on a CPU. The normalised hidden states of all
of them would take more memory than their keys."""

_ELEMENTS_PER_CHUNK = 2**27
"""Hidden states that an accelerator normalises at once, where launches cost more than memory."""


@dataclass(frozen=True)
class FastPath:
    """A layer 0 whose queries and keys were found to be those of a `LlamaLikeLayer`.

    Attributes:
        layer: The layer that was checked.
        scaling: Factor on the attention logits.
        sliding_window: Number of keys that a query sees, its own included; None for all.
    """

    layer: LlamaLikeLayer
    scaling: float
    sliding_window: int | None

    @classmethod
    def find(cls, model: Any, family: ModelFamily) -> FastPath | None:
        """Check layer 0 of a model on a short prompt; None if scoring needs the probe."""
        layer = LlamaLikeLayer.of(model.get_decoder())
        if layer is None or not layer.is_loaded():
            return None
        try:
            with torch.no_grad(), without_autocast():
                return cls._checked(model, layer, _short_prompt(model, family), family)
        except Exception:
            # The probe serves every decoder, and says what is wrong with one.
            _logger.debug("Layer 0 could not be checked.", exc_info=True)
            return None

    @classmethod
    def _checked(
        cls,
        model: Any,
        layer: LlamaLikeLayer,
        layout: PromptLayout,
        family: ModelFamily,
    ) -> FastPath | None:
        # What the model itself computes.
        features = {
            modality: family.vision_output(visuals, modality)
            for modality, visuals in layout.encoded.items()
        }
        types = torch.zeros_like(layout.input_ids)
        for number, modality in enumerate(MODALITIES, start=1):
            for sample, spans in enumerate(layout.spans.get(modality, ())):
                for span in spans:
                    types[sample, span.positions] = number
        probe = Probe(
            model,
            {
                "input_ids": layout.input_ids,
                "attention_mask": layout.attention_mask.long(),
                "position_ids": layout.position_ids,
                "mm_token_type_ids": types,
                "mm_encoder_outputs": features,
            },
        )
        call, entry = probe.attention(), probe.entry()
        if not _is_plain(call) or not entry.makes_masks or entry.position_ids is None:
            return None
        # What the fast path makes of it.
        found = cls(layer, call.scaling, call.options.get("sliding_window"))
        embeds = found.embeds(model, layout)
        everything = torch.ones(layout.attention_mask.shape, dtype=torch.bool, device="cpu")
        queries = QueryTokens.of(everything).to(embeds.device)
        (own,) = found.scoring_layers(layout, embeds, queries)
        equal = (
            torch.equal(entry.position_ids, layout.position_ids),
            torch.equal(entry.inputs_embeds, embeds),
            _is_close(own.query, call.query.transpose(1, 2).flatten(0, 1)),
            _is_close(own.key.flatten(0, 1), call.key.transpose(1, 2).flatten(0, 1)),
        )
        return found if all(equal) else None

    def fits(self, model: Any) -> bool:
        """Whether the model still has the layer that was checked."""
        return LlamaLikeLayer.of(model.get_decoder()) == self.layer

    def embeds(self, model: Any, layout: PromptLayout) -> Tensor:
        """What the decoder gets, float [B, S, D]."""
        twin = make_twin(model.get_input_embeddings(), samples=len(layout.input_ids))
        with twin.running():
            return layout.with_features(twin.module(layout.input_ids))

    def scoring_layers(
        self,
        layout: PromptLayout,
        embeds: Tensor,
        queries: QueryTokens,
        rotary: Sequence[bool] = (True,),
    ) -> list[ScoringLayer]:
        """The scoring layer for query tokens from `embeds`, with RoPE, without, or both.

        Without RoPE, all tokens are in one place, where it turns nothing.
        """
        queries = queries.to(embeds.device)
        sample, position = queries.sample, queries.position
        with self.layer.running_twin() as layer:
            position_ids = layout.position_ids  # [A, B, S] or [B, S]
            turns = [
                position_ids if turned else torch.zeros_like(position_ids) for turned in rotary
            ]
            places = turns[0] if len(turns) == 1 else torch.cat(turns, dim=-2)
            cos, sin = (
                values.unflatten(0, (len(turns), len(embeds)))
                for values in layer.cos_and_sin(embeds, places)
            )  # [T, B, S, rotary] each
            # Keys of all tokens, in chunks of positions.
            length, size = embeds.shape[1], _chunk_size(embeds)
            parts = embeds.split(size, dim=1), cos.split(size, dim=2), sin.split(size, dim=2)
            for number, (chunk, *turn) in enumerate(zip(*parts, strict=True)):
                hidden = layer.input_norm(chunk)  # [B, s, D]
                own = layer.keys(hidden, *turn)  # [T, B, s, key_heads, head_dim]
                if length <= size:
                    key = own
                    break
                if number == 0:
                    # Filled in place: joining the chunks would need the memory twice.
                    key = own.new_empty((*own.shape[:2], length, *own.shape[3:]))
                key[:, :, number * size : (number + 1) * size] = own
            # Queries of the query tokens.
            if length <= size:
                asking = hidden[sample, position]  # [Q, D]
            else:
                asking = layer.input_norm(embeds[sample, position])  # [Q, D]
            turn = [values[:, sample, position] for values in (cos, sin)]  # [T, Q, rotary] each
            query = layer.queries(asking, *turn)  # [T, Q, heads, head_dim]
        return [
            ScoringLayer(
                query=own_query,
                key=own_key,
                sample=sample,
                position=position,
                key_mask=layout.attention_mask.to(key.device),
                scaling=self.scaling,
                sliding_window=self.sliding_window,
                query_counts=queries.counts,
            )
            for own_query, own_key in zip(query, key, strict=True)
        ]


def _chunk_size(embeds: Tensor) -> int:
    """How many positions of embeddings, [B, S, D], are normalised at once."""
    if not few_launches(embeds.device):
        return _POSITIONS_PER_CHUNK
    samples, _, width = embeds.shape
    return max(_ELEMENTS_PER_CHUNK // (samples * width), _POSITIONS_PER_CHUNK)


def _short_prompt(model: Any, family: ModelFamily) -> PromptLayout:
    """Two samples, one with an image and padding on the left, one with a video if there are any.

    The positions differ on every axis, and reach past the model's context.
    """
    weight = model.get_input_embeddings().weight
    # Accelerate moves inputs to where offloaded weights are loaded.
    device = torch.device("cpu") if weight.is_meta else weight.device
    vocabulary = torch.arange(model.config.get_text_config().vocab_size, device=device)[None]
    placeholders = {
        modality: is_placeholder(model, family, {"input_ids": vocabulary}, modality)
        for modality in MODALITIES
    }
    text = vocabulary[~torch.stack(list(placeholders.values())).any(0)]
    length, tokens = 12, 4
    ids = text[torch.arange(2 * length, device=device) * 7 % len(text)].view(2, length)
    mask = torch.ones_like(ids, dtype=torch.bool)  # [B, S]
    mask[0, :2] = False
    # An image in the first sample, a video in the second.
    generator = torch.Generator().manual_seed(0)
    encoded, spans = {}, {}
    for sample, (modality, own) in enumerate(placeholders.items()):
        if not own.any():
            continue
        ids[sample, 4 : 4 + tokens] = vocabulary[own][0]
        options: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
        features = torch.randn(tokens, weight.shape[-1], generator=generator, **options)
        # Small ones too: a factor before the norm shows in them alone.
        features *= torch.logspace(-3, 0, tokens, **options)[:, None]
        layouts = [VisualLayout.row_major(1, 2, 2)]
        # Stock forwards take features as a list or as a tensor: joined, they are both.
        encoded[modality] = EncodedVisuals([features.to(device, weight.dtype)], joined=True)
        spans[modality] = find_visual_spans(ids == vocabulary[own][0], layouts, modality)
    inputs = {"input_ids": ids, "mm_token_type_ids": torch.zeros_like(ids)}
    position_ids = family.position_ids(model, inputs, mask) * 2  # [A, B, S] or [B, S]
    # The second sample goes past the context: some models scale queries from a position on.
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**20
    position_ids[..., 1, :] *= context // length
    if position_ids.ndim == 3:
        position_ids *= torch.tensor([1, 2, 3, 5], device=device)[: len(position_ids), None, None]
    unused = Stopwatch(device)
    return PromptLayout(ids, mask, position_ids, encoded, spans, unused, unused)


def _is_plain(call: AttentionCall) -> bool:
    """Whether layer 0 attends by causal order and a window alone."""
    if call.layer != 0 or given_options(call.options, NOT_PLAIN):
        return False
    return call.mask.is_causal(call.options.get("sliding_window"))


def _is_close(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding, [tokens, heads, head_dim].

    Products of other sizes are added up in another order. Each dimension of each head has a size
    of its own, so that a large one hides nothing in the others.
    """
    if found.shape != expected.shape:
        return False
    tolerance = max(1e-5, 4 * torch.finfo(expected.dtype).eps)
    difference = (found.float() - expected.float()).abs().amax(dim=0)  # [heads, head_dim]
    return bool((difference <= tolerance * expected.float().abs().amax(dim=0)).all())
