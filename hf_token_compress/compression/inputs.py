"""Read the inputs of a stock forward: run the vision part, and find the visual tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from ..models.family import ModelFamily
from ..models.visuals import CompressedVisionOutput, EncodedVisuals
from ..prompt import Modality, MultimodalPrompt, VisualLayout, VisualSpan, find_visual_spans
from .stopwatch import Stopwatch

_MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True)
class PromptLayout:
    """A batch of B prompts of S tokens, with the vision part already run.

    Attributes:
        input_ids: int64 [B, S].
        attention_mask: bool [B, S].
        position_ids: int64 [A, B, S] or [B, S].
        encoded: Features of each modality that is present.
        spans: For each modality, for each prompt, its images or videos in order.
        vision_ms: Milliseconds of the vision part; zero if the caller passed features.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    encoded: dict[Modality, EncodedVisuals]
    spans: dict[Modality, tuple[tuple[VisualSpan, ...], ...]]
    vision_ms: float

    @property
    def visuals(self) -> tuple[tuple[VisualSpan, ...], ...]:
        """For each prompt, images and videos together, in order of appearance."""
        return tuple(
            tuple(sorted(sum(spans, ()), key=lambda span: int(span.positions[0])))
            for spans in zip(*self.spans.values(), strict=True)
        )

    def visual_mask(self) -> Tensor:
        """Bool [B, S], True on visual tokens."""
        mask = torch.zeros_like(self.attention_mask)
        for sample, spans in enumerate(self.visuals):
            for span in spans:
                mask[sample, span.positions] = True
        return mask

    def with_features(self, word_embeddings: Tensor) -> Tensor:
        """Visual features in place of the word embeddings, [B, S, D], of their placeholders."""
        for modality, spans_of_samples in self.spans.items():
            features = iter(self.encoded[modality].features)
            for sample, spans in enumerate(spans_of_samples):
                for span in spans:
                    positions = span.positions.to(word_embeddings.device)
                    word_embeddings[sample, positions] = next(features).to(word_embeddings)
        return word_embeddings

    def prompt(self, instruction_mask: Tensor, embed: Callable[[], Tensor]) -> MultimodalPrompt:
        """What a scorer sees; `embed` computes the decoder's input, float [B, S, D]."""
        return MultimodalPrompt(
            input_ids=self.input_ids,
            embed=embed,
            position_ids=self.position_ids,
            attention_mask=self.attention_mask,
            visual_mask=self.visual_mask(),
            instruction_mask=instruction_mask,
            visuals=self.visuals,
        )


def present_modalities(family: ModelFamily, inputs: Mapping[str, Any]) -> tuple[Modality, ...]:
    """Modalities whose pixels, or features that are not yet compressed, are in `inputs`."""
    encoded = inputs.get("mm_encoder_outputs") or {}
    found: list[Modality] = []
    for modality in _MODALITIES:
        features = encoded.get(modality)
        has_pixels = inputs.get(family.pixel_inputs.get(modality, "")) is not None
        has_features = features is not None and not isinstance(features, CompressedVisionOutput)
        if has_pixels or has_features:
            found.append(modality)
    return tuple(found)


def read_layout(model: Any, family: ModelFamily, inputs: Mapping[str, Any]) -> PromptLayout:
    """Run the vision part once, and find the visual tokens and the position ids of a batch.

    Raises:
        TypeError: `input_ids` or `attention_mask` is not a tensor.
        ValueError: An input is missing or does not fit the others.
    """
    # 1. Encode the images and videos, unless the caller passed their features.
    given = inputs.get("mm_encoder_outputs") or {}
    vision = Stopwatch(model.device)
    encoded, layouts = {}, {}
    for modality in present_modalities(family, inputs):
        with vision.running() if given.get(modality) is None else nullcontext():
            visuals = encoded[modality] = family.features(model, inputs, modality)
        counts = [len(features) for features in visuals.features]
        sizes = family.sizes(model.config, inputs, modality, counts)
        layouts[modality] = family.layouts(model.config, sizes, modality)
        _check_counts(counts, layouts[modality], modality)
    # 2. Find their placeholders.
    input_ids, attention_mask = _checked_sequence(inputs)
    spans = {}
    for modality, own_layouts in layouts.items():
        placeholders = family.placeholders(model.config, inputs, modality)
        if (placeholders & ~attention_mask).any():
            raise ValueError(
                f"attention_mask hides {modality} placeholders: pass the attention_mask that the "
                "processor returned, which hides padding only."
            )
        spans[modality] = find_visual_spans(placeholders, own_layouts, modality)
    # 3. Find the position ids.
    position_ids = family.position_ids(model, inputs, attention_mask)
    if position_ids.shape[-2:] != input_ids.shape:
        raise ValueError(
            f"position_ids must end in the shape of input_ids, {list(input_ids.shape)}, but have "
            f"the shape {list(position_ids.shape)}."
        )
    axis = family.text_order_axis(position_ids)
    if axis is not None:
        _check_one_sequence_per_sample(position_ids[axis], attention_mask)
    return PromptLayout(
        input_ids, attention_mask, position_ids, encoded, spans, vision.milliseconds
    )


def check_shape(name: str, tensor: object, input_ids: Tensor) -> None:
    """Raise unless an input has one entry per token."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} must be a tensor of the shape of input_ids, not {type(tensor).__name__}."
        )
    if tensor.shape != input_ids.shape:
        raise ValueError(
            f"{name} must have the shape of input_ids, {list(input_ids.shape)}, but has "
            f"{list(tensor.shape)}."
        )


def _check_counts(
    counts: Sequence[int], layouts: Sequence[VisualLayout], modality: Modality
) -> None:
    if len(counts) != len(layouts):
        raise ValueError(
            f"There are features of {len(counts)} {modality}s, but grids of {len(layouts)}: pass "
            "both from the same processor call."
        )
    for number, (count, layout) in enumerate(zip(counts, layouts, strict=True)):
        if count != layout.count:
            shapes = " and ".join(" x ".join(map(str, grid.shape)) for grid in layout.grids)
            raise ValueError(
                f"{modality} {number} has {count} features, but its grid of {shapes} needs "
                f"{layout.count}: pass the features of the same processor call."
            )


def _checked_sequence(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    input_ids = inputs.get("input_ids")
    if input_ids is None or inputs.get("inputs_embeds") is not None:
        raise ValueError(
            "Token compression finds visual tokens by their placeholders: pass input_ids, not "
            "inputs_embeds, with the images and videos."
        )
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2:
        raise TypeError("input_ids must be a 2-D tensor [batch, length].")
    attention_mask = inputs.get("attention_mask")
    if attention_mask is None:
        return input_ids, torch.ones_like(input_ids, dtype=torch.bool)
    check_shape("attention_mask", attention_mask, input_ids)
    return input_ids, attention_mask.bool()


def _check_one_sequence_per_sample(text_positions: Tensor, attention_mask: Tensor) -> None:
    for sample, mask in enumerate(attention_mask):
        if (text_positions[sample][mask].diff() != 1).any():
            raise ValueError(
                f"The text positions of prompt {sample} have gaps or restarts, as in packed "
                "sequences: pad the prompts instead of packing them."
            )
